"""Images per second of `vlp download` beside img2dataset's own command, on the same images and options.

    python tests/benchmarks/download.py [--images 4000] [--rounds 3]

A server in a process of its own serves generated JPEG images of about 470 x 400 pixels from memory. Both
commands run with two processes and the same number of threads, in turn, each into an empty folder. Two
rates are compared: from the first request that the server sees to the last shard on disk, and of the whole
command, start-up included.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Result, report
from image_server import ImageServer, serve

SHARD_SIZE, THREADS, PROCESSES = 500, 32, 2
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


def vlp_command(url_list: Path, output: Path) -> list[str]:
    """`vlp download` with the options of the comparison."""
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
        "machine.data_workers": PROCESSES,
        "machine.storage": output.parent / "results",
    }
    arguments = [f"{key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "pipelines.cli", "download", *arguments, "-o", str(output)]


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
    """Run both commands in turn."""
    commands = {"vlp": vlp_command, "img2dataset": img2dataset_command}
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            output = folder / f"shards-{name}"
            runs[name].append(measure(command(folder / "urls.parquet", output), output, server))
            print(f"{name:12} {runs[name][-1]}", flush=True)
        if runs["vlp"][-1].outcomes != runs["img2dataset"][-1].outcomes:
            raise RuntimeError("the outcomes differ")
    count = runs["vlp"][-1].outcomes.total()
    rates = {name: [run.images_per_second for run in runs[name]] for name in commands}
    whole = {name: [count / run.seconds for run in runs[name]] for name in commands}
    settings = {"unit": "images/s", "peer_name": "img2dataset's command"}
    return [
        Result(
            what="first request to last shard",
            ours=rates["vlp"],
            peer=rates["img2dataset"],
            **settings,
        ),
        Result(what="whole command", ours=whole["vlp"], peer=whole["img2dataset"], **settings),
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = make_images(arguments.images)
    with tempfile.TemporaryDirectory() as name, serve(images) as server:
        rows = {"url": [server.url + path for path in images], "caption": ["a picture"] * len(images)}
        pq.write_table(pa.table(rows), Path(name) / "urls.parquet")
        report("download", compare(Path(name), server, arguments.rounds))


if __name__ == "__main__":
    main()
