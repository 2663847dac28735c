"""Two workers with half of a batch each give the gradient of one worker with the whole batch.

The workers run this file as a program, once for all objectives and masks: starting them takes seconds.
"""

import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.contracts import settings
from vlp.core.distributed import all_gather, all_mean, all_sum, is_main, rank, world_size
from vlp.encoders.beit import BEiTConfig
from vlp.encoders.blocks import checkpoint_blocks
from vlp.encoders.timm import TimmConfig
from vlp.encoders.vit import ViTConfig
from vlp.losses import in_parts
from vlp.losses.contrastive import CONTRASTIVE_LOSSES
from vlp.losses.labels import LABEL_LOSSES
from vlp.masking.cluster import ClusterMask
from vlp.masking.kmeans import KMeansMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import OBJECTIVES, Batch, Objective, Vocabulary
from vlp.text_masking.random import RandomTextMask
from vlp.training.step import TrainingConfig, forward

IN_PARTS = "in parts"  # the two workers save memory, the one does not
DROPPED_PATHS = "dropped paths"  # as well
HIDDEN_WORDS = "hidden words"  # as well
IN_TILES = "in tiles"  # the logits, of which a part is two rows
BATCH_NORMS = "batch norms"
MASKS = {
    IN_PARTS: ClusterMask(threshold=0.3),
    DROPPED_PATHS: RandomMask(),
    BATCH_NORMS: NoMask(),
    HIDDEN_WORDS: RandomMask(),
    IN_TILES: NoMask(),
    "none": NoMask(),
    "random": RandomMask(),
    "cluster": ClusterMask(threshold=0.3),
    "kmeans": KMeansMask(num_clusters=4),
}
MAE_CROSS = "mae-cross"
LOSSES = {
    MAE_CROSS: {"decoder": "cross", "predicted_ratio": 0.5},
    **{f"contrastive-{name}": {"loss": loss()} for name, loss in CONTRASTIVE_LOSSES.items()},
    **{
        f"superclass-{name}": {"loss": loss(), "idf": "online" if loss.takes_idf else "none"}
        for name, loss in LABEL_LOSSES.items()
    },
}
CASES = [
    *(
        (objective, mask)
        for objective, mask in product(sorted(OBJECTIVES), ["none", "random", "cluster", "kmeans"])
        if mask != "none" or not OBJECTIVES[objective].rebuilds_patches
    ),
    *((name, "none") for name in LOSSES if name != MAE_CROSS),
    *((MAE_CROSS, mask) for mask in (IN_PARTS, "cluster")),
    *((name, IN_TILES) for name in LOSSES if name.startswith("contrastive")),
    *product(sorted(OBJECTIVES), [IN_PARTS, DROPPED_PATHS]),
    *product(["contrastive", "superclass"], [BATCH_NORMS]),
    *((name, HIDDEN_WORDS) for name in sorted(OBJECTIVES) if OBJECTIVES[name].reads_captions),
]
NUM_WORKERS, NUM_STEPS, B = 2, 2, 8


def build(objective: str, mask: str) -> Objective:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": 48, "patch_size": 8, "width": 32, "depth": 2, "num_heads": 2}
    encoders = {
        DROPPED_PATHS: lambda: BEiTConfig(**sizes, drop_path=0.5, layer_scale=1.0),
        BATCH_NORMS: lambda: TimmConfig(model="test_resnet", image_size=48),
    }
    encoder = encoders.get(mask, lambda: ViTConfig(**sizes))().build()
    name = objective.partition("-")[0]
    config = OBJECTIVES[name](**settings.OBJECTIVES.get(name, {}), **LOSSES.get(objective, {}))
    vocabulary = Vocabulary(22, 8, (20, 21))
    model = config.build(encoder, MASKS[mask], vocabulary=vocabulary)
    if mask == HIDDEN_WORDS:
        model.hide_words(RandomTextMask(num_tokens=5), vocabulary)
    return model.train()


def global_batch(step: int) -> Batch:
    generator = Generator().manual_seed(step)
    images = F.interpolate(torch.randn(B, 3, 6, 6, generator=generator), size=(48, 48), mode="bilinear")
    lengths = torch.randint(3, 9, (B,), generator=generator)
    tokens = torch.randint(0, 20, (B, 8), generator=generator)
    tokens[:, 0] = 20
    tokens[torch.arange(B), lengths - 1] = 21
    return Batch(images, tokens.masked_fill(torch.arange(8) >= lengths[:, None], 0), lengths)


def part(batch: Batch) -> Batch:
    """This worker's rows, as short as its own longest caption."""
    images, tokens, lengths = (x.chunk(world_size())[rank()] for x in batch[:3])
    return Batch(images, tokens[:, : lengths.max()], lengths)


def run(objective: str, mask: str) -> list[dict[str, Any]]:
    """Loss, gradients, buffers and the visible patches of this worker's images, of each step."""
    model = build(objective, mask)
    in_parts.MAX_PRODUCTS = 2 * B if mask == IN_TILES and world_size() > 1 else 2**24
    if mask in (IN_PARTS, DROPPED_PATHS, HIDDEN_WORDS) and world_size() > 1:
        model.num_parts = 3
        checkpoint_blocks(model.blocks)
    wrapped = nn.parallel.DistributedDataParallel(model) if world_size() > 1 else model
    records = []
    for step in range(NUM_STEPS):
        model.zero_grad()
        batch = part(global_batch(step))
        found = forward(wrapped, batch, TrainingConfig(), step=step, seed=3)
        found.loss.backward()
        slots = model.choose_visible(batch.images, progress=0.0, generator=Generator().manual_seed(step))
        records.append(
            {
                "loss": all_mean(found.loss.detach()),
                "mask_ratio": all_mean(found.metrics["mask_ratio"]),
                "gradients": gradients(model),
                "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
                "keep_indices": slots.keep_indices,
            }
        )
    return records


alone = cache(run)
"""By one worker; for all that is compared with it."""


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def collectives() -> dict[str, Any]:
    """Sums, means and gathered rows, with the gradient of a loss that each worker weighs differently."""
    mine = (torch.arange(6.0).view(3, 2) + 100 * rank()).requires_grad_()
    rows = all_gather(mine)
    weights = torch.arange(6.0 * world_size()).view(-1, 2) * (rank() + 1)
    (rows.T * weights.T).sum().backward()  # a gradient that is not contiguous
    before = torch.tensor([1.0 + rank()])
    return {
        "rows": rows.detach(),
        "gradient": mine.grad,
        "sum": all_sum(before),
        "mean": all_mean(before),
        "before": before,
        "is_main": is_main(),
    }


def work(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=NUM_WORKERS
    )
    found: dict[Any, Any] = {case: run(*case) for case in CASES}
    torch.save(found | {"collectives": collectives()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What each of the workers found."""
    folder = tmp_path_factory.mktemp("workers")
    processes = [
        subprocess.Popen([sys.executable, __file__, str(i), str(folder)], stderr=subprocess.PIPE, text=True)
        for i in range(NUM_WORKERS)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{i}.pt") for i in range(NUM_WORKERS)]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, workers: list[dict[Any, Any]]) -> tuple[Any, Any]:
    """One objective with one mask: the steps of one worker, and those of each of two."""
    return alone(*request.param), [found[request.param] for found in workers]


def test_two_workers_have_the_loss_and_gradient_of_one_with_the_whole_batch(case: tuple[Any, Any]) -> None:
    one, workers = case
    for records in workers:
        for expected, found in zip(one, records, strict=True):
            torch.testing.assert_close(found["loss"], expected["loss"], atol=1e-5, rtol=1e-5)
            assert found["gradients"].keys() == expected["gradients"].keys()
            for name, gradient in expected["gradients"].items():
                atol = 1e-5 * max(1.0, gradient.abs().max().item())  # a sum of large terms may end near 0
                torch.testing.assert_close(found["gradients"][name], gradient, atol=atol, rtol=1e-4, msg=name)


def test_two_workers_mask_their_images_as_one_worker_does(case: tuple[Any, Any]) -> None:
    one, workers = case
    for step, expected in enumerate(one):
        rows: list[Tensor] = [records[step]["keep_indices"] for records in workers]
        assert torch.equal(torch.cat(rows), expected["keep_indices"])
        for records in workers:
            torch.testing.assert_close(records[step]["mask_ratio"], expected["mask_ratio"])


def test_two_workers_count_what_one_worker_counts(case: tuple[Any, Any]) -> None:
    one, workers = case
    for step, expected in enumerate(one):
        for records in workers:
            assert records[step]["buffers"].keys() == expected["buffers"].keys()
            for name, buffer in expected["buffers"].items():
                found = records[step]["buffers"][name]
                torch.testing.assert_close(found, buffer, atol=1e-6, rtol=1e-5, msg=name)  # counts are equal


def test_collectives_gather_in_rank_order_and_return_every_workers_gradient(
    workers: list[dict[Any, Any]],
) -> None:
    mine = torch.arange(6.0).view(3, 2)
    weights = torch.arange(12.0).view(6, 2)
    for i, found in enumerate(worker["collectives"] for worker in workers):
        assert torch.equal(found["rows"], torch.cat([mine, mine + 100]))
        assert torch.equal(found["gradient"], 3 * weights.chunk(2)[i])
        assert found["sum"].item() == 3
        assert found["mean"].item() == 1.5
        assert found["before"].item() == 1 + i, "a collective changed its argument"
        assert found["is_main"] == (i == 0)


def test_collectives_of_one_process_change_nothing() -> None:
    x = torch.arange(6.0).view(3, 2)
    for collective in (all_gather, all_sum, all_mean):
        assert torch.equal(collective(x), x)
    assert (rank(), world_size(), is_main()) == (0, 1, True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(int(sys.argv[1]), Path(sys.argv[2]))
