"""Training steps of CLIP, of its masked methods and of SuperClass, against open_clip's step and our own CLIP.

python tests/benchmarks/step.py [--device cpu cuda] [--size vit_b16 small large_batch] [--runs 5]

On every device that is there: in float32 on the CPU; in bfloat16 on a GPU, both sides compiled.
`large_batch` compares our own steps only.
"""

import argparse
from dataclasses import replace
from functools import partial

from harness import Result, flickr8k_captions, report, skip
from steps import open_clip_steps, ours
from steps.arguments import per_device, step_options, suffix
from steps.side import Side, Turns, in_turns
from steps.sizes import SIZES, Size

NAME = "step"
OURS, SUPERCLASS, PEER = "our", "superclass", "open_clip"
MASKED = ("FLIP 0.5", "FLIP 0.5, 8 tokens", "cluster RGB 0.5", "FLIP_Attn")


def main() -> None:
    parser = step_options(__doc__, sizes=list(SIZES))
    parser.add_argument("--batch-size", type=int, help="instead of each size's usual one")
    devices = list(per_device(parser))
    if flickr8k_captions() is None:
        skip(NAME, "it needs the photographs and captions of Flickr8k")
        return
    for arguments, name in ((device, size) for device in devices for size in device.size):
        size = SIZES[name]
        if arguments.batch_size is not None:
            size = replace(size, batch_size={arguments.device: arguments.batch_size})
        turns, batch = measure(size, arguments), size.batch_size[arguments.device]
        label = f"{size.name}, batch {batch}"
        results = against_our_clip(turns, label, arguments.note)
        if size.has_peer:
            results = against_open_clip(turns, batch, label, arguments.note) + results
        report(f"{NAME}_{name}{suffix(arguments)}", results, arguments.results)


def measure(size: Size, arguments: argparse.Namespace) -> dict[str, Turns]:
    """All steps of one size, in turns."""
    device, threads = arguments.device, arguments.threads
    builds = {OURS: ours.clip_and_masked}
    if size.has_peer:
        builds |= {SUPERCLASS: ours.superclass, PEER: open_clip_steps.clip}
    sides = {
        name: Side(build, size, device, device=device, threads=threads) for name, build in builds.items()
    }
    return in_turns(sides, runs=arguments.runs, repetitions=arguments.repetitions)


def against_open_clip(turns: dict[str, Turns], batch: int, label: str, note: str) -> list[Result]:
    """Images per second of every method, and the memory of CLIP."""
    clip, peer = turns[f"{OURS} CLIP"], turns[f"{PEER} CLIP"]
    line = partial(Result, peer_name="open_clip's CLIP step", note=note)
    steps = {step: turns[f"{OURS} {step}"] for step in ("CLIP", *MASKED)}
    steps["SuperClass"] = turns[f"{SUPERCLASS} SuperClass"]
    rates = [
        line(what=f"{name}, {label}", unit="images/s", ours=step.rates(batch), peer=peer.rates(batch))
        for name, step in steps.items()
    ]
    memory = line(what=f"CLIP, {label}, peak memory", unit="MiB", ours=[clip.peak_mib], peer=[peer.peak_mib])
    return [*rates, memory]


def against_our_clip(turns: dict[str, Turns], label: str, note: str) -> list[Result]:
    """Time of every other method, and what choosing the cluster mask adds to FLIP's."""
    line = partial(Result, unit="s/step", note=note)
    clip = {"peer": turns[f"{OURS} CLIP"].seconds, "peer_name": "our CLIP step"}
    steps = {step: turns[f"{OURS} {step}"] for step in MASKED}
    if f"{SUPERCLASS} SuperClass" in turns:
        steps["SuperClass"] = turns[f"{SUPERCLASS} SuperClass"]
    times = [line(what=f"{name}, {label}", ours=step.seconds, **clip) for name, step in steps.items()]
    choice = line(
        what=f"choosing the cluster mask, {label}",
        ours=turns[f"{OURS} choice"].seconds,
        peer=turns[f"{OURS} FLIP 0.5"].seconds,
        peer_name="our FLIP step",
    )
    return [*times, choice]


if __name__ == "__main__":
    main()
