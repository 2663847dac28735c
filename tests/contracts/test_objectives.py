"""What holds for every registered objective with every kind of mask."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.encoders.text import TextConfig
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking import MaskStrategy
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import OBJECTIVES, Batch, Objective, Vocabulary
from vlp.objectives.rebuild_targets import PixelTargetConfig
from vlp.optim import AdamWConfig, build_optimizer
from vlp.training import TrainingConfig, forward, update

SETTINGS = {
    "contrastive": {"embed_dim": 16, "text_encoder": TextConfig(width=32, depth=2, num_heads=2)},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, "norm_pix_loss": False},
    "simmim": {"target": PixelTargetConfig(loss="l2")},
}
MASKS = {"none": NoMask(), "random": RandomMask(), "cluster": ClusterMask(threshold=0.3)}
CASES = [
    (objective, mask)
    for objective, mask in product(sorted(OBJECTIVES), sorted(MASKS))
    if mask != "none" or not OBJECTIVES[objective].rebuilds_patches
]
START, END, COMMON, VOCABULARY = 20, 21, 19, 22


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def objective(case: tuple[str, str]) -> str:
    return case[0]


@pytest.fixture
def mask(case: tuple[str, str]) -> MaskStrategy:
    return MASKS[case[1]]


def build(objective: str, mask: MaskStrategy) -> Objective:
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=48, patch_size=8, width=32, depth=2, num_heads=2))
    config = OBJECTIVES[objective](**SETTINGS.get(objective, {}))
    return config.build(encoder, mask, vocabulary=Vocabulary(VOCABULARY, 8, (START, END)))


@pytest.fixture
def batch() -> Batch:
    """Eight smooth images, each with a word of its own, once to three times, and one that all share."""
    generator = Generator().manual_seed(0)
    coarse = torch.randn(8, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, size=(48, 48), mode="bilinear")
    rows = [[START, COMMON, *[i] * (1 + i % 3), END] for i in range(8)]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
    return Batch(images, tokens, lengths)


def step(model: Objective, batch: Batch, number: int = 0):
    return forward(model, batch, TrainingConfig(steps=1000), step=number, seed=0)


def test_one_batch_is_learned_by_heart(objective: str, mask: MaskStrategy, batch: Batch) -> None:
    model = build(objective, mask).train()
    optimizer = build_optimizer(model, AdamWConfig(weight_decay=0.0))
    losses = []
    for number in range(300):
        # What is rebuilt depends on the mask, so the mask stays as it is too.
        loss = step(model, batch, 0 if OBJECTIVES[objective].rebuilds_patches else number).loss
        update(model, loss, optimizer, lr=3e-3, max_norm=None)
        model.after_update()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]


def test_every_parameter_gets_a_gradient(objective: str, mask: MaskStrategy, batch: Batch) -> None:
    model = build(objective, mask).train()
    step(model, batch).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_metrics_are_detached_scalars(objective: str, mask: MaskStrategy, batch: Batch) -> None:
    loss, metrics = step(build(objective, mask), batch)
    assert loss.shape == ()
    assert loss.requires_grad
    for value in metrics.values():
        assert value.shape == ()
        assert not value.requires_grad


def test_the_mask_ratio_is_the_share_of_patches_that_cannot_move_the_loss(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    images = batch.images.clone().requires_grad_()
    model = build(objective, mask)
    generator = Generator().manual_seed(0)
    slots = model.choose_visible(batch.images, progress=0.0, generator=generator)
    loss, metrics = model(batch._replace(images=images), progress=0.0, generator=generator.manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, images)
    moved = model.image_encoder.mask_inputs(gradient).patches.abs().amax(dim=2) > 0
    expected = torch.zeros_like(moved)
    for row, keep in enumerate(slots.keep_indices):
        expected[row, keep if slots.is_padding is None else keep[~slots.is_padding[row]]] = True
    assert torch.equal(moved, expected)
    assert metrics["mask_ratio"].item() == pytest.approx(1 - moved.float().mean().item())


def test_a_batch_gives_one_loss_whatever_the_global_generator(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    losses = []
    for seed in (1, 2):
        model = build(objective, mask)
        torch.manual_seed(seed)
        losses.append(step(model, batch).loss.item())
    assert losses[0] == losses[1]


def test_longer_padding_of_the_captions_changes_no_loss(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    padded = batch._replace(tokens=F.pad(batch.tokens, (0, 2)))
    losses = [step(build(objective, mask), b).loss for b in (batch, padded)]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)


def whole(model: Objective, images: Tensor) -> dict[str, Tensor]:
    outputs = {"features": model.features(images)}
    if encode_image := getattr(model, "encode_image", None):
        outputs["embeddings"] = encode_image(images)
    return outputs


@torch.no_grad()
def test_whole_images_are_never_masked_in_training_either(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    expected = whole(build(objective, RandomMask(mask_ratio=0.25)).eval(), batch.images)
    model = build(objective, mask).train()
    for name, found in whole(model, batch.images).items():
        assert torch.equal(found, expected[name])


def test_a_model_is_restored_by_its_state(objective: str, mask: MaskStrategy, batch: Batch) -> None:
    trained, fresh = build(objective, mask).train(), build(objective, mask).train()
    optimizer = build_optimizer(trained, AdamWConfig())
    for number in range(3):
        update(trained, step(trained, batch, number).loss, optimizer, lr=1e-2, max_norm=1.0)
        trained.after_update()
    fresh.load_state_dict(trained.state_dict())
    assert step(fresh, batch, 3).loss.item() == step(trained, batch, 3).loss.item()
