"""The command line that the benchmarks of training steps share."""

import argparse
from collections.abc import Iterator, Sequence

import torch
from harness import command_line

DEVICES = ("cpu", "cuda")


def step_options(description: str | None, *, sizes: Sequence[str] = ()) -> argparse.ArgumentParser:
    """What a benchmark of steps can be told."""
    parser = command_line(description)
    available = DEVICES if torch.cuda.is_available() else DEVICES[:1]
    parser.add_argument("--device", nargs="+", choices=DEVICES, default=available)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    if sizes:
        parser.add_argument("--size", nargs="+", choices=sizes, default=list(sizes))
    return parser


def per_device(parser: argparse.ArgumentParser) -> Iterator[argparse.Namespace]:
    """What was told, for each device; with repetitions of a step per turn, and a note on the precision."""
    arguments = vars(parser.parse_args())
    for device in arguments.pop("device"):
        on_gpu = {"repetitions": 10, "note": "bf16, compiled"}
        turn = on_gpu if device == "cuda" else {"repetitions": 1, "note": ""}
        yield argparse.Namespace(**arguments, **turn, device=device)


def suffix(arguments: argparse.Namespace) -> str:
    """What distinguishes the results of a device in their file's name."""
    return "" if arguments.device == "cpu" else f"_{arguments.device}"
