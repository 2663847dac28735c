"""Contrastive losses with their gradients, in tiles, against the whole matrix of logits.

python tests/benchmarks/contrastive_loss.py [--batch-size 8192] [--largest 65536] [--width 512]    on the CPU

In float32; each is measured once, in a process of its own. The largest batch has no peer: its matrix would
take 16 GiB, and a softmax with its gradient several of them.
"""

from harness import Result, Usage, command_line, in_fresh_process, report

NAME = "contrastive_loss"
LOSSES = ("infonce", "sigmoid")


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--batch-size", type=int, default=8192, help="of what is compared")
    parser.add_argument("--largest", type=int, default=65_536, help="of what is measured alone")
    parser.add_argument("--width", type=int, default=512, help="numbers of an embedding")
    sizes = parser.parse_args()
    results = []
    for loss in LOSSES:
        ours, peer = (in_fresh_process(work, loss, sizes.batch_size, sizes.width) for work in (tiled, dense))
        results += lines(f"{loss}, {sizes.batch_size:,} x {sizes.width}", ours, peer)
        alone = in_fresh_process(tiled, loss, sizes.largest, sizes.width)
        results += lines(f"{loss}, {sizes.largest:,} x {sizes.width}", alone, None)
    report(NAME, results, sizes.results)


def lines(what: str, ours: Usage, peer: Usage | None) -> list[Result]:
    """Time and peak memory; those of the process as a whole."""
    name = "the whole matrix"
    peers = [] if peer is None else [peer]
    return [
        Result(what=what, unit="s", ours=[ours.seconds], peer=[x.seconds for x in peers], peer_name=name),
        Result(
            what=f"{what}, peak memory",
            unit="MiB",
            ours=[ours.peak_mib],
            peer=[x.peak_mib for x in peers],
            peer_name=name,
        ),
    ]


def tiled(loss: str, batch_size: int, width: int) -> None:
    """Our loss, and its gradient."""
    from vlp.losses.contrastive import CONTRASTIVE_LOSSES

    _with_gradient(CONTRASTIVE_LOSSES[loss](), batch_size, width)


def dense(loss: str, batch_size: int, width: int) -> None:
    """The same by the formula, and its gradient."""
    import torch
    import torch.nn.functional as F

    def infonce(images, texts, scale, bias):
        logits, targets = scale * images @ texts.T, torch.arange(len(images))
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    def sigmoid(images, texts, scale, bias):
        logits = scale * images @ texts.T + bias
        return (F.softplus(logits).sum() - logits.diagonal().sum()) / len(images)

    _with_gradient({"infonce": infonce, "sigmoid": sigmoid}[loss], batch_size, width)


def _with_gradient(loss, batch_size: int, width: int) -> None:
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    sides = [F.normalize(torch.randn(batch_size, width, generator=generator), dim=1) for _ in range(2)]
    leaves = [x.requires_grad_() for x in (*sides, torch.tensor(14.3), torch.tensor(-10.0))]
    loss(*leaves).backward()


if __name__ == "__main__":
    main()
