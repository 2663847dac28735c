"""Images per second of `vlp download` beside img2dataset's own command, on the same images and options.

    python tests/benchmarks/download.py [--images 4000] [--rounds 3]

A server in a process of its own serves generated JPEG images of about 470 x 400 pixels from memory. Our
command, with Ray and without, and img2dataset's run in turn with the same number of threads, each into an
empty folder and with two processes; without Ray there is one per core. Two rates are compared: from the first
request that the server sees to the last shard on disk, and of the whole command, start-up included.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Result, command_line, report
from image_server import ImageServer, serve

SHARD_SIZE, THREADS, PROCESSES = 500, 32, 2
PEER = "img2dataset"
ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",  # as the peer's processes
}


class Run(NamedTuple):
    """One run of one command."""

    images_per_second: float
    seconds: float
    outcomes: Counter[str]


def make_images(count: int) -> dict[str, bytes]:
    """Smooth random pictures, which compress to about 30 kB, with sides that differ a little."""
    images = {}
    for i in range(count):
        rng = np.random.default_rng(i)
        height, width = 400 + int(rng.integers(-20, 21)), 470 + int(rng.integers(-20, 21))
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        _, encoded = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (7, 7), 2), [cv2.IMWRITE_JPEG_QUALITY, 85])
        images[f"/{i:06d}.jpg"] = encoded.tobytes()
    return images


def vlp_command(url_list: Path, output: Path, *, data_workers: int = PROCESSES) -> list[str]:
    """`vlp download` with the options of the comparison; with Ray's actors, or 0 of them for none of Ray."""
    settings = {
        "url_list": url_list,
        "image_size": 256,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": "true",
        "number_sample_per_shard": SHARD_SIZE,
        "thread_count": THREADS,
        "host_concurrency": THREADS * PROCESSES,
        "retries": 0,
        "allowed_networks": "[127.0.0.0/8]",
        "machine.data_workers": data_workers,
        "machine.storage": output.parent / "results",
    }
    arguments = [f"{key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "pipelines", "download", *arguments, "-o", str(output)]


def img2dataset_command(url_list: Path, output: Path) -> list[str]:
    """img2dataset's command with the same options; it shrinks with antialiasing (area) by default."""
    options = {
        "url_list": url_list,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": output,
        "output_format": "webdataset",
        "image_size": 256,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "downscale_interpolation": "area",
        "number_sample_per_shard": SHARD_SIZE,
        "thread_count": THREADS,
        "processes_count": PROCESSES,
        "extract_exif": False,
        "compute_hash": "sha256",
        "retries": 0,
    }
    arguments = [f"--{key}={value}" for key, value in options.items()]
    return [
        sys.executable,
        "-c",
        "import fire, img2dataset; fire.Fire(img2dataset.download)",
        *arguments,
    ]


def measure(command: list[str], output: Path, server: ImageServer) -> Run:
    """Run a command and count what it made."""
    shutil.rmtree(output, ignore_errors=True)
    server.reset()
    started = time.time()
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds = time.time() - started
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    first = server.status().first_request
    last = max(file.stat().st_mtime for file in output.glob("*_stats.json"))
    outcomes = Counter[str]()
    for file in output.glob("*.parquet"):
        outcomes.update(pq.read_table(file, columns=["status"])["status"].to_pylist())
    return Run(outcomes["success"] / (last - first), seconds, outcomes)


def compare(folder: Path, server: ImageServer, rounds: int) -> list[Result]:
    """Run all commands in turn."""
    commands = {
        "with Ray": vlp_command,
        "without Ray": partial(vlp_command, data_workers=0),
        PEER: img2dataset_command,
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            output = folder / f"shards-{name}"
            runs[name].append(measure(command(folder / "urls.parquet", output), output, server))
            print(f"{name:12} {runs[name][-1]}", flush=True)
        if len({frozenset(each[-1].outcomes.items()) for each in runs.values()}) > 1:
            raise RuntimeError("the outcomes differ")
    return [result for name in commands if name != PEER for result in results(name, runs[name], runs[PEER])]


def results(name: str, ours: list[Run], peers: list[Run]) -> list[Result]:
    """Both rates of one of our commands."""
    settings = {"unit": "images/s", "peer_name": "img2dataset's command"}
    return [
        Result(
            what=f"first request to last shard, {name}",
            ours=[run.images_per_second for run in ours],
            peer=[run.images_per_second for run in peers],
            **settings,
        ),
        Result(
            what=f"whole command, {name}",
            ours=[run.outcomes.total() / run.seconds for run in ours],
            peer=[run.outcomes.total() / run.seconds for run in peers],
            **settings,
        ),
    ]


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = make_images(arguments.images)
    with tempfile.TemporaryDirectory() as name, serve(images) as server:
        rows = {"url": [server.url + path for path in images], "caption": ["a picture"] * len(images)}
        pq.write_table(pa.table(rows), Path(name) / "urls.parquet")
        report("download", compare(Path(name), server, arguments.rounds), arguments.results)


if __name__ == "__main__":
    main()
