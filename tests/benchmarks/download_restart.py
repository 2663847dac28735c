"""A download of 100,000 URLs that is killed when half of them are stored, and started again.

    python tests/benchmarks/download_restart.py [--urls 100000] [--shard-size 1000]

The figure is the time from the command to its first new request, with Ray and without. A shard is stored
whole or not at all, so no URL of a stored shard is asked for again; those of the shards that were being made
are, and are counted.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Result, command_line, report
from image_server import ImageServer, serve


@dataclass(frozen=True)
class Urls:
    """How many there are, in shards of how many."""

    count: int
    per_shard: int

    def write(self, file: Path, site: str) -> None:
        """The list; a path begins with the name of its shard."""
        paths = [f"{i // self.per_shard:05d}/{i % self.per_shard}.jpg" for i in range(self.count)]
        table = {"url": [f"{site}/{path}" for path in paths], "caption": ["a picture"] * self.count}
        pq.write_table(pa.table(table), file)


def start(folder: Path, urls: Urls, data_workers: int) -> subprocess.Popen[bytes]:
    """`vlp download` as a process."""
    settings = {
        "url_list": folder / "urls.parquet",
        "image_size": 32,
        "number_sample_per_shard": urls.per_shard,
        "allowed_networks": "[127.0.0.0/8]",
        "machine.data_workers": data_workers,
        "machine.storage": folder / "results",
    }
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "download",
        *(f"{k}={v}" for k, v in settings.items()),
    ]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(
        [*command, "-o", str(folder / "shards")],
        stdout=log,
        stderr=log,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )


def stored(folder: Path) -> set[str]:
    """The names of the shards that are complete."""
    return {file.name.removesuffix("_stats.json") for file in (folder / "shards").glob("*_stats.json")}


def wait_for_quiet(server: ImageServer) -> None:
    """Until the actors of the killed driver have gone, too."""
    count = -1
    while count != (count := server.status().num_requests):
        time.sleep(3)


def measure(folder: Path, server: ImageServer, urls: Urls, data_workers: int) -> list[Result]:
    """Kill at half, start again, and look at what the server saw."""
    driver = start(folder, urls, data_workers)
    while len(stored(folder)) < urls.count // urls.per_shard // 2:
        time.sleep(0.05)
        if driver.poll() is not None:
            raise RuntimeError((folder / "log.txt").read_text())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for_quiet(server)
    before = {f"/{int(name):05d}/" for name in stored(folder)}
    server.reset()
    started = time.time()
    if start(folder, urls, data_workers).wait():
        raise RuntimeError((folder / "log.txt").read_text())
    status = server.status()
    again = [path for path in status.repeated if path[:7] in before]
    mode = "with Ray" if data_workers else "without Ray"
    note = f"{len(before) * urls.per_shard:,} URLs were stored, {len(again)} of them asked for again"
    return [
        Result(
            what=f"restart to the first new request, {mode}",
            unit="s",
            ours=[status.first_request - started],
            note=note,
        ),
        Result(
            what=f"asked for twice, as their shards were being made, {mode}",
            unit="URLs",
            ours=[len(status.repeated) - len(again)],
        ),
    ]


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--urls", type=int, default=100_000, help="how many")
    parser.add_argument("--shard-size", type=int, default=1000, help="of how many URLs")
    arguments = parser.parse_args()
    urls = Urls(arguments.urls, arguments.shard_size)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = cv2.imencode(".jpg", pixels)[1].tobytes()
    results = [result for workers in (2, 0) for result in restart(image, urls, data_workers=workers)]
    report("download_restart", results, arguments.results)


def restart(image: bytes, urls: Urls, *, data_workers: int) -> list[Result]:
    """All of it in a folder of its own, from a server of its own."""
    with tempfile.TemporaryDirectory() as name, serve({"*": image}) as server:
        urls.write(Path(name) / "urls.parquet", server.url)
        return measure(Path(name), server, urls, data_workers)


if __name__ == "__main__":
    main()
