"""What holds for every registered image encoder."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from vlp.contracts import settings
from vlp.encoders import IMAGE_ENCODERS, ImageEncoder, ImageEncoderConfig
from vlp.encoders.patches import patchify, unpatchify
from vlp.losses.reconstruction import masked_mean
from vlp.masking import MaskStrategy, visible_slots
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import OBJECTIVES, Batch, Objective, Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.objective import ObjectiveConfig
from vlp.objectives.simmim import SimMIMConfig, hidden_share
from vlp.training.optim import AdamWConfig, build_optimizer
from vlp.training.step import TrainingConfig, forward, update

SIZE = 64
CONTRASTIVE = ContrastiveConfig(**settings.OBJECTIVES["contrastive"])
CASES = [
    IMAGE_ENCODERS[name](**{"image_size": SIZE} | given)
    for name in sorted(IMAGE_ENCODERS)
    for given in settings.IMAGE_ENCODERS.get(name, [{}])
]
DROPPING = [case for case in CASES if case.can_drop_patches]
TAKING = [case for case in CASES if case.takes_mask_token]


def each(configs: list[ImageEncoderConfig]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("config", configs, ids=lambda config: config.label)


def build(config: ImageEncoderConfig) -> ImageEncoder:
    """Random weights everywhere, also where a table starts as zeros."""
    torch.manual_seed(0)
    encoder = config.build().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder


def whole_model(objective: ObjectiveConfig, config: ImageEncoderConfig, mask: MaskStrategy) -> Objective:
    return objective.build(build(config), mask, vocabulary=Vocabulary(8, 5)).train()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=Generator().manual_seed(1))


@pytest.fixture
def batch(images: Tensor) -> Batch:
    return Batch(images, torch.zeros(3, 2, dtype=torch.int64), torch.full((3,), 2))


@torch.no_grad()
@each(CASES)
def test_there_is_a_state_for_the_image_and_one_for_each_place(
    config: ImageEncoderConfig, images: Tensor
) -> None:
    encoder = build(config)
    N = config.num_patches
    slots = visible_slots(torch.zeros(3, N, dtype=torch.bool), N)
    states = encoder(images)
    assert states.shape == (3, 1 + (SIZE // config.stride) ** 2, encoder.width)
    torch.testing.assert_close(encoder(images, slots), states, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@each(CASES)
def test_an_image_has_the_states_that_it_has_alone(config: ImageEncoderConfig, images: Tensor) -> None:
    encoder = build(config)
    torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@each(TAKING)
def test_a_mask_token_hides_the_pixels_beneath_it(config: ImageEncoderConfig, images: Tensor) -> None:
    encoder = build(config)
    inputs = encoder.mask_inputs(images)
    masked = torch.rand(3, inputs.num_patches, generator=Generator().manual_seed(0)) < 0.5
    token = torch.randn(encoder.token_width)
    pixels = patchify(images, config.patch_size)
    pixels[masked] = 100.0
    other = unpatchify(pixels, config.patch_size)
    states = [encoder.encode_replaced(x, masked, token) for x in (images, other)]
    assert states[0].shape == (3, (SIZE // config.stride) ** 2, encoder.width)
    torch.testing.assert_close(*states)
    assert not torch.allclose(states[0], encoder.encode_replaced(images, masked, 2 * token), atol=1e-2)


@torch.no_grad()
@each(TAKING)
def test_without_hidden_patches_both_ways_are_one(config: ImageEncoderConfig, images: Tensor) -> None:
    encoder = build(config)
    none = torch.zeros(3, config.num_patches, dtype=torch.bool)
    replaced = encoder.encode_replaced(images, none, torch.zeros(encoder.token_width))
    torch.testing.assert_close(encoder(images)[:, 1:], replaced, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@each(DROPPING)
def test_a_padded_batch_gives_the_states_of_each_image_alone(
    config: ImageEncoderConfig, images: Tensor
) -> None:
    encoder, counts = build(config), (1, 5, 8)
    noise = torch.rand(3, 16, generator=Generator().manual_seed(0))
    masked = noise.argsort(dim=1).argsort(dim=1) >= torch.tensor(counts)[:, None]
    slots = visible_slots(masked, 8, noise)
    assert slots.is_padding is not None
    together = encoder(images, slots)
    for i, count in enumerate(counts):
        expected = encoder(images[i : i + 1], visible_slots(masked[i : i + 1], count))[0]
        real = torch.cat([together[i, :1], together[i, 1:][~slots.is_padding[i]]])
        torch.testing.assert_close(real, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@each(DROPPING)
def test_what_is_dropped_changes_no_state(config: ImageEncoderConfig, images: Tensor) -> None:
    encoder = build(config)
    masked = torch.rand(3, config.num_patches, generator=Generator().manual_seed(0)).argsort(dim=1) >= 8
    pixels = patchify(images, config.patch_size)
    pixels[masked] = 100.0
    slots = visible_slots(masked, 8)
    other = unpatchify(pixels, config.patch_size)
    torch.testing.assert_close(encoder(images, slots), encoder(other, slots))


@each(CASES)
def test_what_an_encoder_cannot_is_refused_before_it_is_built(config: ImageEncoderConfig) -> None:
    for objective in (CONTRASTIVE, SimMIMConfig()):
        can = config.can_drop_patches if objective.drops_patches else config.takes_mask_token
        if can:
            objective.check(config, RandomMask())
        else:
            with pytest.raises(ValueError, match=f"{config.label} (needs all of them|takes none)"):
                objective.check(config, RandomMask())
    CONTRASTIVE.check(config, NoMask())


@each(CASES)
def test_an_encoder_offers_the_views_that_its_config_names(
    config: ImageEncoderConfig, images: Tensor
) -> None:
    inputs = build(config).mask_inputs(images)
    offered: set[str] = set()
    for view in ("tokens", "attention"):
        with suppress(ValueError):
            assert getattr(inputs, view).shape[:2] == (3, inputs.num_patches)
            offered.add(view)
    assert offered == config.views


@each(CASES)
def test_every_weight_gets_a_gradient_of_a_loss_over_texts(config: ImageEncoderConfig, batch: Batch) -> None:
    model = whole_model(CONTRASTIVE, config, NoMask())
    forward(model, batch, TrainingConfig(), step=0, seed=0).loss.backward()
    encoder = model.image_encoder
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@each(TAKING)
def test_every_weight_learns_in_simmim(config: ImageEncoderConfig, images: Tensor) -> None:
    model = SimMIMConfig().build(build(config), RandomMask(), vocabulary=Vocabulary(8, 5)).train()
    masked = torch.rand(3, config.num_patches) < 0.5
    masked_mean(
        model.target.errors(model.predict(images, masked), images), hidden_share(masked, SIZE)
    ).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@each(CASES)
def test_only_encoders_that_say_so_mix_the_images_of_a_batch(
    config: ImageEncoderConfig, images: Tensor
) -> None:
    encoder = build(config).train()
    moved = images.clone()
    moved[2] += 1
    states = [encoder(x)[:2] for x in (images, moved)]
    assert torch.allclose(*states, atol=1e-5) == (not config.mixes_images)


@each(CASES)
def test_training_changes_no_buffer_beside_those_that_an_encoder_names(
    config: ImageEncoderConfig, batch: Batch
) -> None:
    model = whole_model(CONTRASTIVE, config, NoMask())
    before = {name: x.clone() for name, x in model.named_buffers()}
    optimizer = build_optimizer(model, AdamWConfig())
    update(
        model, forward(model, batch, TrainingConfig(), step=0, seed=0).loss, optimizer, lr=1e-3, max_norm=None
    )
    named = {id(buffer) for buffer in model.image_encoder.changing_buffers()}
    changed = [name for name, x in model.named_buffers() if not torch.equal(x, before[name])]
    assert {id(model.get_buffer(name)) for name in changed} <= named
    assert bool(changed) == config.mixes_images


@pytest.mark.parametrize("mask", [NoMask(), RandomMask(), ClusterMask(threshold=0.3)])
@pytest.mark.parametrize(
    ("config", "objective"),
    [
        *((config, "simmim") for config in TAKING),
        *((config, "mae") for config in DROPPING),
        *((config, "superclass") for config in CASES),
    ],
    ids=lambda value: getattr(value, "label", value),
)
def test_every_encoder_trains_in_bf16_as_in_fp32(
    config: ImageEncoderConfig, objective: str, mask: MaskStrategy, batch: Batch
) -> None:
    decoder = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2} if objective == "mae" else {}
    made = OBJECTIVES[objective](**decoder)
    try:
        made.check(config, mask)
    except ValueError:
        return
    batch = batch._replace(tokens=torch.arange(6).view(3, 2))
    model = whole_model(made, config, mask)
    fp32, bf16 = (
        forward(model, batch, TrainingConfig(precision=precision), step=0, seed=0).loss
        for precision in ("fp32", "bf16")
    )
    assert bf16.item() == pytest.approx(fp32.item(), rel=0.02)
    bf16.backward()


@each([case for case in CASES if case.can_drop_patches and hasattr(case, "drop_path")])
def test_the_paths_that_are_dropped_depend_on_the_step_alone(
    config: ImageEncoderConfig, batch: Batch
) -> None:
    dropping = replace(config, drop_path=0.5)  # pyright: ignore[reportCallIssue]
    model, losses = whole_model(CONTRASTIVE, dropping, RandomMask()), []
    for seed in range(3):
        torch.manual_seed(seed)
        losses.append(forward(model, batch, TrainingConfig(), step=1, seed=0).loss.item())
    assert len(set(losses)) == 1
    assert losses[0] != forward(model.eval(), batch, TrainingConfig(), step=1, seed=0).loss.item()
