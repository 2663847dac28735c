"""CLIP's byte pairs on one core, against open_clip's SimpleTokenizer on the same captions.

python tests/benchmarks/tokenization.py [--captions 35000] [--runs 5]
"""

import time

import torch
from harness import command_line, compare, flickr8k_captions, report, skip
from open_clip.tokenizer import SimpleTokenizer

from vlp.tokenizers.clip_bpe import ClipBPEConfig

NAME = "tokenization"
CAPTIONS_PER_BATCH = 256


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--captions", type=int, default=35_000, help="how many")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    captions = flickr8k_captions()
    if captions is None:
        skip(NAME, "it needs the captions of Flickr8k")
        return
    captions = captions[: arguments.captions]
    torch.set_num_threads(1)
    ours, peer = ClipBPEConfig().build(), SimpleTokenizer()
    batches = [captions[i : i + CAPTIONS_PER_BATCH] for i in range(0, len(captions), CAPTIONS_PER_BATCH)]
    work = {
        "ids": (lambda: ours.token_ids(captions), lambda: [peer.encode(text) for text in captions]),
        "padded tensor": (lambda: ours.encode(captions), lambda: peer(captions)),
        f"padded tensors of {CAPTIONS_PER_BATCH}": (
            lambda: [ours.encode(batch) for batch in batches],
            lambda: [peer(batch) for batch in batches],
        ),
        "ids, tokenizer just built": (
            lambda: ClipBPEConfig().build().token_ids(captions),
            lambda: [encode(text) for encode in [SimpleTokenizer().encode] for text in captions],
        ),
    }
    assert ours.token_ids(captions) == [peer.encode(text) for text in captions]
    report(
        NAME,
        [
            compare(
                f"CLIP BPE, {what}",
                *pair,
                amount=len(captions),
                unit="captions per second of a core",
                peer_name="open_clip SimpleTokenizer",
                runs=arguments.runs,
                clock=time.process_time,
            )
            for what, pair in work.items()
        ],
        arguments.results,
    )


if __name__ == "__main__":
    main()
