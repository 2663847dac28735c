"""What holds for every registered objective with every kind of mask."""

import io
from itertools import product
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.contracts import settings
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking import MaskStrategy
from vlp.masking.cluster import ClusterMask
from vlp.masking.kmeans import KMeansMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import OBJECTIVES, Batch, Objective, Vocabulary
from vlp.training.length import LengthConfig
from vlp.training.optim import AdamWConfig, build_optimizer
from vlp.training.step import TrainingConfig, backward, build_scaler, forward, update

MASKS = {
    "none": NoMask(),
    "random": RandomMask(),
    "cluster": ClusterMask(threshold=0.3),
    "kmeans": KMeansMask(num_clusters=4),
}
REFUSED = [(objective, "none") for objective in sorted(OBJECTIVES) if OBJECTIVES[objective].rebuilds_patches]
CASES = [case for case in product(sorted(OBJECTIVES), sorted(MASKS)) if case not in REFUSED]
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
    encoder = VisionTransformer(ViTConfig(image_size=32, patch_size=8, width=32, depth=2, num_heads=2))
    config = OBJECTIVES[objective](**settings.OBJECTIVES.get(objective, {}))
    return config.build(encoder, mask, vocabulary=Vocabulary(VOCABULARY, 8, (START, END)))


@pytest.fixture
def batch() -> Batch:
    """Eight smooth images, each with a word of its own, once to three times, and one that all share."""
    generator = Generator().manual_seed(0)
    coarse = torch.randn(8, 3, 4, 4, generator=generator)
    images = F.interpolate(coarse, size=(32, 32), mode="bilinear")
    rows = [[START, *[i] * (1 + i % 3), COMMON, END] for i in range(8)]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
    return Batch(images, tokens, lengths)


def step(model: Objective, batch: Batch, number: int = 0):
    return forward(model, batch, TrainingConfig(length=LengthConfig(steps=1000)), step=number, seed=0)


@pytest.mark.parametrize(("objective", "mask"), REFUSED)
def test_an_objective_that_rebuilds_patches_is_refused_without_a_mask(objective: str, mask: str) -> None:
    message = f"objective {objective} rebuilds hidden patches, but mask {mask} hides none"
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[objective]().check(ViTConfig(), MASKS[mask])
    with pytest.raises(ValueError, match=message):
        build(objective, MASKS[mask])


def test_one_batch_is_learned_by_heart(objective: str, mask: MaskStrategy, batch: Batch) -> None:
    """Of four pairs, for which a few hundred steps are enough."""
    batch = Batch(*(x[:4] for x in batch[:3]))
    model = build(objective, mask).train()
    optimizer = build_optimizer(model, AdamWConfig(weight_decay=0.0))
    losses: list[float] = []
    for number in range(1000):
        # What is rebuilt depends on the mask, so the mask stays as it is too.
        loss = step(model, batch, 0 if OBJECTIVES[objective].rebuilds_patches else number).loss
        update(model, loss, optimizer, lr=5e-3, max_norm=None)
        model.after_update()
        losses.append(loss.item())
        if sum(losses[-5:]) / 5 < 0.1 * losses[0]:
            break
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]


def test_every_parameter_gets_a_gradient(objective: str, mask: MaskStrategy, batch: Batch) -> None:
    model = build(objective, mask).train()
    step(model, batch).loss.backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    without = [n for n, p in trained if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def gradient(objective: str, mask: MaskStrategy, batch: Batch, precision: Literal["fp32", "fp16"]) -> Tensor:
    """Of the first step whose scale does not overflow."""
    config = TrainingConfig(length=LengthConfig(steps=1000), precision=precision)
    scaler = build_scaler(config, torch.device("cpu"))
    while True:
        model = build(objective, mask).train()
        loss = forward(model, batch, config, step=0, seed=0).loss
        norm = backward(model, loss, build_optimizer(model, AdamWConfig()), scaler)
        assert loss.isfinite()
        if norm.isfinite():
            return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        scaler.update()


def test_scaled_fp16_gives_nearly_the_gradient_of_fp32(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    fp32, fp16 = (gradient(objective, mask, batch, precision) for precision in ("fp32", "fp16"))
    assert not torch.equal(fp32, fp16)
    assert torch.dist(fp32, fp16) < 0.03 * fp32.norm()


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


def test_captions_move_the_loss_of_the_objectives_that_say_so(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    others = batch._replace(tokens=batch.tokens.flip(0), lengths=batch.lengths.flip(0))
    losses = [step(build(objective, mask), b).loss.item() for b in (batch, others)]
    assert (losses[0] != losses[1]) == OBJECTIVES[objective].reads_captions


def whole(objective: str, model: Objective, images: Tensor) -> dict[str, Tensor]:
    outputs = {"features": model.features(images)}
    if OBJECTIVES[objective].encodes_text:
        outputs["embeddings"] = model.encode_image(images)
    return outputs


@torch.no_grad()
def test_whole_images_are_never_masked_in_training_either(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    expected = whole(objective, build(objective, RandomMask(mask_ratio=0.25)).eval(), batch.images)
    model = build(objective, mask).train()
    for name, found in whole(objective, model, batch.images).items():
        assert torch.equal(found, expected[name])


@torch.no_grad()
def test_images_are_compared_with_texts_by_the_objectives_that_say_so(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    model = build(objective, mask).eval()
    if not OBJECTIVES[objective].encodes_text:
        with pytest.raises(TypeError, match=type(model).__name__):
            model.encode_image(batch.images)
        with pytest.raises(TypeError, match=type(model).__name__):
            model.encode_text(batch.tokens, batch.lengths)
        return
    images, texts = model.encode_image(batch.images), model.encode_text(batch.tokens, batch.lengths)
    assert images.shape == texts.shape
    assert torch.equal(model.project(model.features(batch.images)), images)
    for embeddings in (images, texts):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))


@torch.no_grad()
def test_objectives_that_rebuild_patches_show_whole_images(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    model = build(objective, mask).eval()
    slots = model.choose_visible(batch.images, progress=0.0, generator=Generator().manual_seed(0))
    rebuilt = model.rebuild(batch.images, slots)
    assert (rebuilt is not None) == OBJECTIVES[objective].rebuilds_patches
    if rebuilt is not None:
        assert rebuilt.shape == batch.images.shape
        assert rebuilt.isfinite().all()


def test_a_run_that_was_saved_and_resumed_is_bit_equal_to_one_that_was_not(
    objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    def train(model: Objective, optimizer: torch.optim.Optimizer, numbers: range) -> list[float]:
        losses = []
        for number in numbers:
            found = step(model, batch, number)
            update(model, found.loss, optimizer, lr=1e-2, max_norm=1.0)
            model.after_update()
            losses.append(found.loss.item())
        return losses

    models = [build(objective, mask).train() for _ in range(3)]
    undisturbed, cut, resumed = models
    optimizers = [build_optimizer(model, AdamWConfig()) for model in models]
    expected = train(undisturbed, optimizers[0], range(5))
    train(cut, optimizers[1], range(3))
    saved = io.BytesIO()
    torch.save((cut.state_dict(), optimizers[1].state_dict()), saved)
    saved.seek(0)
    weights, state = torch.load(saved, weights_only=True)
    resumed.load_state_dict(weights)
    optimizers[2].load_state_dict(state)
    assert train(resumed, optimizers[2], range(3, 5)) == expected[3:]
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
