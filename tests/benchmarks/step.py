"""Training steps of CLIP and of its masked methods, against open_clip's own step on the same captions.

python tests/benchmarks/step.py [--device cuda] [--size vit_b16 small] [--runs 5]    float32 on the CPU; on a
GPU bfloat16, and both sides compiled
"""

import argparse

from harness import Result, flickr8k_captions, report, skip
from steps import open_clip_steps, ours
from steps.arguments import parse, suffix
from steps.side import Side, Turns, in_turns
from steps.sizes import SIZES, Size

NAME = "step"
MASKED = ("FLIP 0.5", "cluster RGB 0.5", "FLIP_Attn")


def main() -> None:
    arguments = parse(__doc__, sizes=list(SIZES))
    if flickr8k_captions() is None:
        skip(NAME, "it needs the photographs and captions of Flickr8k")
        return
    results = []
    for name in arguments.size:
        size = SIZES[name]
        results += _compare(size, measure(size, arguments), arguments)
    report(NAME + suffix(arguments), results)


def measure(size: Size, arguments: argparse.Namespace) -> dict[str, Turns]:
    """All steps of one size, in turns."""
    device, threads = arguments.device, arguments.threads
    builds = {"ours": ours.clip_and_masked, "our": ours.superclass, "open_clip": open_clip_steps.clip}
    sides = {
        name: Side(build, size, device, device=device, threads=threads) for name, build in builds.items()
    }
    return in_turns(sides, runs=arguments.runs, repetitions=arguments.repetitions)


def _compare(size: Size, turns: dict[str, Turns], arguments: argparse.Namespace) -> list[Result]:
    batch, note = size.batch_size[arguments.device], arguments.note
    clip, peer, superclass = turns["ours CLIP"], turns["open_clip CLIP"], turns["our SuperClass"]
    label = f"{size.name}, batch {batch}"
    against = {"peer": peer.rates(batch), "peer_name": "open_clip's CLIP step", "note": note}
    rates = [
        Result(what=f"{step}, {label}", unit="images/s", ours=turns[f"ours {step}"].rates(batch), **against)
        for step in ("CLIP", *MASKED)
    ]
    own = {"unit": "s/step", "peer": clip.seconds, "peer_name": "our CLIP step", "note": note}
    shares = [Result(what=f"{step}, {label}", ours=turns[f"ours {step}"].seconds, **own) for step in MASKED]
    shares.append(Result(what=f"SuperClass, {label}", ours=superclass.seconds, **own))
    choice = Result(
        what=f"choosing the cluster mask, {label}",
        unit="s/step",
        ours=turns["ours choice"].seconds,
        peer=turns["ours FLIP 0.5"].seconds,
        peer_name="our FLIP step",
        note=note,
    )
    memory = Result(
        what=f"CLIP, {label}, peak memory",
        unit="MiB",
        ours=[clip.peak_mib],
        peer=[peer.peak_mib],
        peer_name="open_clip's CLIP step",
        note=note,
    )
    return [*rates, *shares, choice, memory]


if __name__ == "__main__":
    main()
