"""Training steps of MAE and SimMIM, against Hugging Face's models of the same sizes on the same photographs.

python tests/benchmarks/reconstruction_step.py [--device cpu cuda] [--runs 5]    float32 on the CPU; on a GPU
bfloat16, and both sides compiled
"""

import argparse

from harness import Result, flickr8k_captions, report, skip
from steps import hugging_face, ours
from steps.arguments import per_device, step_options, suffix
from steps.side import Side, in_turns
from steps.sizes import REBUILD_BATCH_SIZE

NAME = "reconstruction_step"
METHODS = {
    "MAE": ("ViT-B/16", ours.mae, hugging_face.mae, "transformers' ViTMAEForPreTraining"),
    "SimMIM": ("Swin-B", ours.simmim, hugging_face.simmim, "transformers' SwinForMaskedImageModeling"),
}


def main() -> None:
    parser = step_options(__doc__)
    parser.add_argument("--batch-size", type=int, help="instead of the device's usual one")
    devices = list(per_device(parser))
    if flickr8k_captions() is None:
        skip(NAME, "it needs the photographs of Flickr8k")
        return
    for arguments in devices:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """On one device."""
    batch, results = arguments.batch_size or REBUILD_BATCH_SIZE[arguments.device], []
    for method, (model, our_build, peer_build, peer_name) in METHODS.items():
        builds = {"our": our_build, "peer": peer_build}
        sides = {
            name: Side(build, arguments.device, batch, device=arguments.device, threads=arguments.threads)
            for name, build in builds.items()
        }
        turns = in_turns(sides, runs=arguments.runs, repetitions=arguments.repetitions)
        mine, peer = turns[f"our {method}"], turns[f"peer {method}"]
        what = f"{method}, {model}, batch {batch}"
        results += [
            Result(
                what=what,
                unit="images/s",
                ours=mine.rates(batch),
                peer=peer.rates(batch),
                peer_name=peer_name,
                note=arguments.note,
            ),
            Result(
                what=f"{what}, peak memory",
                unit="MiB",
                ours=[mine.peak_mib],
                peer=[peer.peak_mib],
                peer_name=peer_name,
                note=arguments.note,
            ),
        ]
    report(NAME + suffix(arguments), results, arguments.results)


if __name__ == "__main__":
    main()
