"""The command line that the benchmarks of training steps share."""

import argparse
from collections.abc import Sequence

import torch


def parse(description: str | None, *, sizes: Sequence[str] = ()) -> argparse.Namespace:
    """Device, runs and threads, how often a step is repeated per turn, and a note on the precision."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    if sizes:
        parser.add_argument("--size", nargs="+", choices=sizes, default=list(sizes))
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    arguments.repetitions = 10 if on_gpu else 1
    arguments.note = "bf16, compiled" if on_gpu else ""
    return arguments


def suffix(arguments: argparse.Namespace) -> str:
    """What distinguishes the results of a device in their file's name."""
    return "" if arguments.device == "cpu" else f"_{arguments.device}"
