"""Images per second of `vlp download` beside img2dataset's own command, on the same images and options.

    python tests/benchmarks/download.py [--images 4000] [--rounds 3] [--port 18150]

A server in a process of its own serves generated JPEG images of about 470 x 400 pixels. Both commands run
with two processes and the same number of threads, in turn, each into an empty folder. Two figures are
compared, as medians over the rounds: images per second from the first request that the server sees to the
last shard on disk, and the seconds of the whole command, start-up included.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
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

from pipelines.serve import ImageServer

SHARD_SIZE, THREADS, PROCESSES = 500, 32, 2
ENVIRONMENT = {"NO_ALBUMENTATIONS_UPDATE": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


class Result(NamedTuple):
    """One run of one command."""

    images_per_second: float
    seconds: float
    outcomes: Counter[str]


def make_images(folder: Path, count: int) -> None:
    """Smooth random pictures, which compress to about 30 kB, with sides that differ a little."""
    for i in range(count):
        rng = np.random.default_rng(i)
        height, width = 400 + int(rng.integers(-20, 21)), 470 + int(rng.integers(-20, 21))
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        _, encoded = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (7, 7), 2), [cv2.IMWRITE_JPEG_QUALITY, 85])
        (folder / f"{i:06d}.jpg").write_bytes(encoded.tobytes())


def serve(folder: Path, port: int, stop: str) -> None:
    """Serve until a file appears; the time of the first request after each reset goes to a file beside it."""
    with ImageServer(folder, port=port) as server:
        while not Path(stop).exists():
            time.sleep(0.005)
            if server.requests.total() and not Path(f"{stop}.first").exists():
                Path(f"{stop}.first").write_text(str(time.time()))
            if Path(f"{stop}.reset").exists():
                server.requests.clear()
                Path(f"{stop}.first").unlink(missing_ok=True)
                Path(f"{stop}.reset").unlink()


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


def measure(command: list[str], output: Path, stop: str) -> Result:
    """Run a command and count what it made."""
    Path(f"{stop}.reset").touch()
    while Path(f"{stop}.reset").exists():
        time.sleep(0.01)
    started = time.time()
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds = time.time() - started
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    first = float(Path(f"{stop}.first").read_text())
    last = max(file.stat().st_mtime for file in output.glob("*_stats.json"))
    outcomes = Counter[str]()
    for file in output.glob("*.parquet"):
        outcomes.update(pq.read_table(file, columns=["status"])["status"].to_pylist())
    return Result(outcomes["success"] / (last - first), seconds, outcomes)


def main() -> None:
    """Print each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=18150)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, stop = Path(name), str(Path(name) / "stop")
        (folder / "images").mkdir()
        make_images(folder / "images", arguments.images)
        rows = {"url": [f"http://127.0.0.1:{arguments.port}/{i:06d}.jpg" for i in range(arguments.images)]}
        rows["caption"] = [f"picture {i}" for i in range(arguments.images)]
        pq.write_table(pa.table(rows), folder / "urls.parquet")
        server = multiprocessing.Process(target=serve, args=(folder / "images", arguments.port, stop))
        server.start()
        try:
            compare(folder, stop, arguments.rounds)
        finally:
            Path(stop).touch()
            server.join()


def compare(folder: Path, stop: str, rounds: int) -> None:
    """Run both commands in turn."""
    commands = {"vlp": vlp_command, "img2dataset": img2dataset_command}
    results: dict[str, list[Result]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            output = folder / f"shards-{name}"
            shutil.rmtree(output, ignore_errors=True)
            results[name].append(measure(command(folder / "urls.parquet", output), output, stop))
            print(f"{name:12} {json.dumps(results[name][-1])}", flush=True)
    for what, is_better in (("images_per_second", 1), ("seconds", -1)):
        ours, theirs = (statistics.median(getattr(r, what) for r in results[name]) for name in commands)
        print(f"{what}: {ours:.1f} and {theirs:.1f}, {(ours / theirs) ** is_better:.2f}x", flush=True)


if __name__ == "__main__":
    main()
