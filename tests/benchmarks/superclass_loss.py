"""SuperClass's loss with its gradient, against the loss over a dense K-hot target.

python tests/benchmarks/superclass_loss.py [--device cpu cuda] [--batch-size 256] [--runs 5]    float32
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from harness import Result, flickr8k_captions, report, skip
from steps.arguments import per_device, step_options, suffix
from steps.side import Side, Steps, in_turns
from torch import Generator, Tensor

from vlp.losses.labels import Labels, softmax_loss
from vlp.objectives.superclass import caption_labels
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.training.cpu import keep_freed_memory

NAME = "superclass_loss"
NUM_CLASSES = 49_408


def main() -> None:
    parser = step_options(__doc__)
    parser.add_argument("--batch-size", type=int, default=256)
    devices = list(per_device(parser))
    if flickr8k_captions() is None:
        skip(NAME, "it needs the captions of Flickr8k")
        return
    for arguments in devices:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """On one device."""
    device, batch_size, peer_name = arguments.device, arguments.batch_size, "a dense K-hot target"
    builds = {"worker": as_in_a_worker, "sparse": sparse, "dense": dense}
    sides = {
        name: Side(build, device, batch_size, device=device, threads=arguments.threads)
        for name, build in builds.items()
    }
    turns = in_turns(sides, runs=arguments.runs, repetitions=5)
    what = f"softmax loss and gradient, {batch_size} x {NUM_CLASSES:,}"
    dense_rates = turns["dense loss"].rates(batch_size)
    rates = [
        Result(
            what=name,
            unit="images/s",
            ours=turns[f"{side} loss"].rates(batch_size),
            peer=dense_rates,
            peer_name=peer_name,
        )
        for side, name in (("sparse", what), ("worker", f"{what}, freed memory kept as in a worker"))
    ]
    logits_mib = batch_size * NUM_CLASSES * 4 / 2**20
    above = {
        side: max(turns[f"{side} loss"].peak_mib - turns[f"{side} rest"].peak_mib, 0.0) / logits_mib
        for side in ("sparse", "dense")
    }
    memory = Result(
        what=f"{what}, peak above the logits",
        unit="x the logits",
        ours=[above["sparse"]],
        peer=[above["dense"]],
        peer_name=peer_name,
    )
    report(NAME + suffix(arguments), [*rates, memory], arguments.results)


def as_in_a_worker(device: str, batch_size: int) -> Steps:
    """Our loss, in a process that is set up as a training worker."""
    if device == "cpu":
        keep_freed_memory()
    return sparse(device, batch_size)


def sparse(device: str, batch_size: int) -> Steps:
    """Our loss."""
    return _steps(softmax_loss, device, batch_size)


def dense(device: str, batch_size: int) -> Steps:
    """The same loss by the formula."""
    return _steps(dense_loss, device, batch_size)


def dense_loss(logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
    """Cross-entropy to a (B, K) target."""
    target = torch.zeros_like(logits).scatter_add_(1, labels.ids, labels.is_label.to(logits.dtype))
    target = torch.nn.functional.normalize(target * idf, p=1.0, dim=1)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _steps(loss: Callable[[Tensor, Labels, Tensor], Tensor], device: str, batch_size: int) -> Steps:
    captions, tokenizer = flickr8k_captions(), ClipBPEConfig().build()
    assert captions is not None
    special = torch.tensor(tokenizer.special_tokens)
    labels = caption_labels(*tokenizer.encode(captions[: 5 * batch_size : 5]), special_tokens=special)
    generator = Generator().manual_seed(0)
    logits = torch.randn(batch_size, NUM_CLASSES, generator=generator).to(device).requires_grad_()
    idf = torch.rand(NUM_CLASSES, generator=generator).to(device)
    labels = Labels(*(x.to(device) for x in labels))
    return {"rest": lambda: None, "loss": partial(_with_gradient, loss, logits, labels, idf)}


def _with_gradient(
    loss: Callable[[Tensor, Labels, Tensor], Tensor], logits: Tensor, labels: Labels, idf: Tensor
) -> None:
    torch.autograd.grad(loss(logits, labels, idf), logits)


if __name__ == "__main__":
    main()
