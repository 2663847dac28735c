"""The vision transformer is timm's, and sees its visible patches alone."""

from dataclasses import replace

import pytest
import timm.models.vision_transformer as timm_vit
import torch
from torch import Generator, Tensor, nn

from vlp.encoders.patches import patchify, take
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking import Slots, visible_slots

CONFIG = ViTConfig(image_size=40, patch_size=8, width=48, depth=3, num_heads=3)
N = 25
TIMM_NAMES = {"class_token": "cls_token", "positions": "pos_embed"}


@pytest.fixture
def vit() -> VisionTransformer:
    torch.manual_seed(0)
    vit = VisionTransformer(CONFIG)
    with torch.no_grad():  # positions and class token that matter
        vit.positions.normal_()
        vit.class_token.normal_()
    return vit.eval()


@pytest.fixture
def oracle(vit: VisionTransformer) -> timm_vit.VisionTransformer:
    """timm's model with the same weights."""
    model = timm_vit.VisionTransformer(
        img_size=40,
        patch_size=8,
        embed_dim=48,
        depth=3,
        num_heads=3,
        num_classes=0,
        pre_norm=True,
        norm_layer=nn.LayerNorm,
    )
    model.load_state_dict({TIMM_NAMES.get(name, name): value for name, value in vit.state_dict().items()})
    return model.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 40, 40, generator=Generator().manual_seed(1))


@pytest.fixture
def masked() -> Tensor:
    """Ragged masks: 1 to 25 visible patches."""
    noise = torch.rand(6, N, generator=Generator().manual_seed(2)).argsort(dim=1)
    return noise >= torch.tensor([1, 4, 9, 15, 24, 25])[:, None]


def pad(masked: Tensor, num_visible: int) -> Slots:
    return visible_slots(masked, num_visible, torch.rand(masked.shape, generator=Generator().manual_seed(3)))


def alone(oracle: timm_vit.VisionTransformer, image: Tensor, visible: list[int]) -> Tensor:
    """timm's layers on the class token and the given patches of one image: (1 + visible, D)."""
    assert oracle.pos_embed is not None
    assert oracle.cls_token is not None
    patches = oracle.patch_embed(image[None])[0] + oracle.pos_embed[0, 1:]
    x = torch.cat([oracle.cls_token[0] + oracle.pos_embed[0, :1], patches[visible]])
    return oracle.norm(oracle.blocks(oracle.norm_pre(x[None])))[0]


@torch.no_grad()
def test_a_whole_image_gives_the_states_of_timms_model(
    vit: VisionTransformer, oracle: timm_vit.VisionTransformer, images: Tensor
) -> None:
    torch.testing.assert_close(vit(images), oracle.forward_features(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("num_visible", [25, 12])
def test_a_padded_batch_gives_the_states_of_each_image_alone_with_its_visible_patches(
    vit: VisionTransformer,
    oracle: timm_vit.VisionTransformer,
    images: Tensor,
    masked: Tensor,
    num_visible: int,
) -> None:
    slots = pad(masked, num_visible)
    assert slots.is_padding is not None
    assert slots.is_padding.any()
    states = vit(images, slots)
    assert states.shape == (6, 1 + num_visible, 48)
    parts = (images, states, slots.keep_indices, slots.is_padding)
    for image, state, keep, padding in zip(*parts, strict=True):
        expected = alone(oracle, image, keep[~padding].tolist())
        real = torch.cat([state[:1], state[1:][~padding]])
        torch.testing.assert_close(real, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_padding_slots_hold_changes_no_visible_state(
    vit: VisionTransformer, images: Tensor, masked: Tensor
) -> None:
    slots = pad(masked, 20)
    assert slots.is_padding is not None
    tokens = vit.embed(images)
    is_filler = torch.zeros(6, N, dtype=torch.bool).scatter(1, slots.keep_indices, slots.is_padding)
    other = torch.where(is_filler[:, :, None], 100 * torch.randn(6, N, 48), tokens)
    before, after = vit.encode(tokens, slots), vit.encode(other, slots)
    real = torch.cat([torch.ones(6, 1, dtype=torch.bool), ~slots.is_padding], dim=1)
    torch.testing.assert_close(before[real], after[real], atol=1e-6, rtol=0)
    assert not torch.equal(tokens, other)


def test_hidden_patches_get_no_gradient(vit: VisionTransformer, images: Tensor, masked: Tensor) -> None:
    images.requires_grad_()
    slots = pad(masked, 20)
    assert slots.is_padding is not None
    states = vit(images, slots)
    # A padding slot reads its own patch; objectives leave it out, as is done here.
    (states[:, 1:][~slots.is_padding].square().sum() + states[:, 0].square().sum()).backward()
    assert images.grad is not None
    gradient = patchify(images.grad, 8).abs().amax(dim=2)
    visible = take(gradient[:, :, None], slots.keep_indices)[:, :, 0]
    assert (visible[~slots.is_padding] > 0).all()
    assert gradient[masked].abs().max() == 0


@torch.no_grad()
def test_the_order_of_the_slots_changes_no_class_token(
    vit: VisionTransformer, images: Tensor, masked: Tensor
) -> None:
    slots = pad(masked, 20)
    assert slots.is_padding is not None
    shuffled = Slots(slots.keep_indices.flip(1), slots.is_padding.flip(1))
    torch.testing.assert_close(vit(images, slots)[:, 0], vit(images, shuffled)[:, 0], atol=1e-5, rtol=1e-5)


def test_masks_are_chosen_on_the_images_own_patches(vit: VisionTransformer, images: Tensor) -> None:
    inputs = vit.mask_inputs(images)
    assert (inputs.num_images, inputs.num_patches) == (6, N)
    for n in range(N):
        top, left = 8 * (n // 5), 8 * (n % 5)
        cell = images[:, :, top : top + 8, left : left + 8]
        assert torch.equal(inputs.patches[:, n], cell.permute(0, 2, 3, 1).reshape(6, -1))


@pytest.mark.parametrize("settings", [{"image_size": 50}, {"width": 50}])
def test_sizes_that_do_not_divide_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        replace(ViTConfig(image_size=40, patch_size=8, width=48, num_heads=3), **settings)
