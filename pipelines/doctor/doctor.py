"""Everything that a run needs of a machine or a cluster, tried before any work."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pipelines.compute.cluster import connect_for_training
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.config.storage import check_storage
from pipelines.doctor.finding import Finding, examine
from pipelines.doctor.gradient import difference_of_gradients, interface_remedy, judge, meeting_point
from pipelines.doctor.node import (
    NodeExam,
    NodeReport,
    examine_node,
    installed_versions,
    read_clock,
    unseen_probes,
)
from pipelines.doctor.nodes import Node, Nodes, Task, open_nodes

MAX_CLOCK_SECONDS = 2.0
RAY_LOGS = "look into /tmp/ray/session_latest/logs there"
INSTALL = "install one vlp and its requirements.lock on every node, or start all of them from one image"


def examine_machine(machine: MachineConfig, *, url: str | None = None) -> Iterator[Finding]:
    """Try all that a run needs of the machine's settings, line by line.

    Args:
        url: what every node fetches, to try the network.
    """
    opened: list[Nodes] = []
    yield examine("Ray", partial(_open, machine, opened), remedy=RAY_LOGS)
    for nodes in opened:
        yield examine("token", nodes.token, remedy=RAY_LOGS)
        yield examine("nodes", partial(_count, nodes.all()), remedy=RAY_LOGS)
        yield examine("workers", partial(_check_room, machine), remedy=RAY_LOGS)
        yield from _each_node(machine, nodes, url)
        backend = "nccl" if machine.use_gpu else "gloo"
        yield examine("gradient", partial(_gradient, nodes, backend), remedy=interface_remedy(backend))
    yield examine(
        "MLflow", partial(_try_mlflow, machine), remedy="start it, or name another in machine.tracking_uri"
    )


def _open(machine: MachineConfig, opened: list[Nodes]) -> str:
    opened.append(open_nodes(machine))
    return opened[0].described()


def _count(nodes: Sequence[Node]) -> str:
    sizes = [
        f"{node.name} ({node.resources['CPU']:g} CPUs, {node.resources.get('GPU', 0):g} GPUs)"
        if "CPU" in node.resources
        else node.name
        for node in nodes
    ]
    return f"{len(nodes)}: {', '.join(sizes)}"


def _check_room(machine: MachineConfig) -> str:
    connect_for_training(machine)
    if not machine.worker_counts.most:
        return "training is done in this process"
    return f"there is room for machine.num_workers, {machine.worker_counts}"


def _each_node(machine: MachineConfig, nodes: Nodes, url: str | None) -> Iterator[Finding]:
    storage, all_nodes = machine.work_folder.absolute(), nodes.all()
    probes = storage / f".doctor-{uuid.uuid4().hex[:8]}"
    cache = (machine.cache.folder,) if machine.cache else ()
    exam = NodeExam(storage, probes, cache, machine.loader_workers, url)
    try:
        tasks = [Task(node, examine_node, (exam, node.key)) for node in all_nodes]
        reports: dict[Node, NodeReport] = {}
        for node, report in zip(all_nodes, nodes.do(tasks), strict=True):
            if isinstance(report, Exception):
                yield _failed(report, f"{node.name} answer", remedy=INSTALL)
            else:
                reports[node] = report
                yield from (finding.on(node.name) for finding in report.findings)
        yield examine("versions", partial(_compare_versions, reports), remedy=INSTALL)
        yield examine("clocks", partial(_compare_clocks, nodes, list(reports)), remedy=RAY_LOGS)
        yield examine(
            "shared storage",
            partial(_see_all, nodes, reports, probes)
            if machine.published(machine.work_folder) is None
            else partial(_write_from_each, nodes, reports, machine.absolute()),
            remedy="mount it on every node, or name an object store",
        )
    finally:
        shutil.rmtree(probes, ignore_errors=True)


def _failed(error: Exception, what: str, *, remedy: str) -> Finding:
    def check() -> str:
        raise error

    return examine(what, check, remedy=remedy)


def _compare_versions(reports: dict[Node, NodeReport]) -> str:
    here = installed_versions()
    others = [
        f"{node.name} has {name} {version} and this process {here[name]}"
        for node, report in reports.items()
        for name, version in report.versions.items()
        if version != here[name]
    ]
    if others:
        raise UserError(f"{', '.join(others)}; {INSTALL}")
    return f"{', '.join(f'{name} {version}' for name, version in here.items())} on every node"


def _compare_clocks(nodes: Nodes, known: Sequence[Node]) -> str:
    before = read_clock()
    clocks = nodes.do([Task(node, read_clock) for node in known])
    after = read_clock()
    off = {
        node.name: max(before - clock, clock - after)
        for node, clock in zip(known, clocks, strict=True)
        if not before - MAX_CLOCK_SECONDS <= clock <= after + MAX_CLOCK_SECONDS
    }
    if off:
        said = ", ".join(f"that of {name} is {seconds:.0f} s off" for name, seconds in off.items())
        raise UserError(f"{said}; have chrony or another NTP client set the clocks of all nodes")
    return f"within {MAX_CLOCK_SECONDS:g} s of this machine's"


def _see_all(nodes: Nodes, reports: dict[Node, NodeReport], probes: Path) -> str:
    writers = [node for node, report in reports.items() if report.probe]
    names = tuple(reports[node].probe for node in writers)
    unseen = nodes.do([Task(node, unseen_probes, (probes, names)) for node in reports])
    blind = [
        f"{node.name} does not see what {writer.name} wrote"
        for node, missing in zip(reports, unseen, strict=True)
        for writer in writers
        if reports[writer].probe in missing
    ]
    if blind:
        raise UserError(
            f"{', '.join(blind)} to {probes.parent}; mount one file system there on every node, or name "
            "another folder in machine.storage"
        )
    if len(writers) < len(reports):
        raise UserError("not every node could write; mend the storage of the nodes named above")
    return f"every node sees what each of the {len(writers)} wrote to {probes.parent}"


def _write_from_each(nodes: Nodes, reports: dict[Node, NodeReport], machine: MachineConfig) -> str:
    answers = nodes.do([Task(node, check_storage, (machine,)) for node in reports])
    refused = [
        f"{node.name}: {answer}"
        for node, answer in zip(reports, answers, strict=True)
        if isinstance(answer, Exception)
    ]
    if refused:
        raise UserError("; ".join(refused))
    return f"every node can write to {machine.storage}"


def _gradient(nodes: Nodes, backend: str) -> str:
    """One worker for each node; on a lone one as many as can meet there."""
    on_gpu, places = backend == "nccl", nodes.all()
    if len(places) == 1 and not on_gpu:
        places *= nodes.most_at_once
    (address,) = nodes.do([Task(places[0], meeting_point)])
    tasks = [
        Task(node, difference_of_gradients, (rank, len(places), address, backend), int(on_gpu))
        for rank, node in enumerate(places)
    ]
    differences = nodes.do(tasks)
    for difference in differences:
        if isinstance(difference, Exception):
            raise difference
    return judge(differences, backend=backend)


def _try_mlflow(machine: MachineConfig) -> str:
    from pipelines.tracking.store import Store  # takes a while to import

    return Store(machine.mlflow_uri, "vlp").try_out()
