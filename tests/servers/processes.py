"""Processes that end as when a machine is gone."""

from contextlib import suppress

import psutil


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL to a process and all that it has started, as when a machine is gone."""
    with suppress(psutil.NoSuchProcess):
        all_of_it = [*process.children(recursive=True), process]
        for one in all_of_it:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(all_of_it, timeout=60)
