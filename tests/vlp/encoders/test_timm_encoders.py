"""Encoders by timm's names give what timm gives for the same weights, whole and with patches left out."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from vlp.encoders import ImageEncoder
from vlp.encoders.timm import TimmConfig
from vlp.masking import visible_slots

NAMES = [
    "vit_tiny_patch16_224",
    "test_vit2",  # a register and no class token
    "test_vit4",
    "deit_tiny_distilled_patch16_224",
    "resnet50",
    "convnext_tiny",
]


def pair(name: str) -> tuple[ImageEncoder, Any]:
    """Ours and timm's, with the same weights, of which none is what a fresh model has."""
    torch.manual_seed(0)
    encoder = TimmConfig(model=name, image_size=64).build().eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.02 * torch.randn(weight.shape))
    size: dict[str, Any] = {"img_size": 64} if "vit" in name or "deit" in name else {}
    theirs = timm.create_model(name, pretrained=False, num_classes=0, **size).eval()
    theirs.load_state_dict({key.removeprefix("trunk."): x for key, x in encoder.state_dict().items()})
    return encoder, theirs


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_first_state_is_what_timm_pools(name: str, images: Tensor) -> None:
    encoder, theirs = pair(name)
    torch.testing.assert_close(encoder(images)[:, 0], theirs(images), atol=1e-5, rtol=1e-5)


class Keep(nn.Module):
    """In the place of timm's dropout of patches: leaves out those that it is told to."""

    def __init__(self, indices: Tensor, num_before: int) -> None:
        super().__init__()
        self.indices, self.num_before = indices, num_before

    def forward(self, x: Tensor) -> Tensor:
        index = self.indices[:, :, None].expand(-1, -1, x.shape[2])
        return torch.cat([x[:, : self.num_before], x[:, self.num_before :].gather(1, index)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit2", "test_vit4"])
def test_patches_are_left_out_where_timm_drops_them(name: str, images: Tensor) -> None:
    encoder, theirs = pair(name)
    masked = torch.rand(2, 16, generator=torch.Generator().manual_seed(2)).argsort(dim=1) >= 6
    slots = visible_slots(masked, 6)
    theirs.patch_drop = Keep(slots.keep_indices, theirs.num_prefix_tokens)
    states = encoder(images, slots)
    torch.testing.assert_close(states[:, 0], theirs(images), atol=1e-5, rtol=1e-5)
    expected = theirs.forward_features(images)[:, theirs.num_prefix_tokens :]
    torch.testing.assert_close(states[:, 1:], theirs.fc_norm(expected), atol=1e-5, rtol=1e-5)


def test_what_timm_is_told_beside_the_name_changes_the_model(images: Tensor) -> None:
    config = TimmConfig(model="test_vit", image_size=64, arguments={"reg_tokens": 4, "depth": 1})
    assert config.can_drop_patches
    assert config.build()(images).shape == (2, 17, 64)
    assert hash(config) == hash(TimmConfig(model="test_vit", image_size=64))
    assert config != TimmConfig(model="test_vit", image_size=64)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"model": "vit_smal_patch16_224"},
            "model is 'vit_smal_patch16_224', which timm does not have; did you",
        ),
        ({"model": "resnetv2_50"}, "model has batch norms of another kind (BatchNormAct2d)"),
        ({"model": "test_vit", "image_size": 60}, "image_size 60 is not a multiple of patch_size 16"),
        ({"model": "test_vit", "arguments": {"wdith": 3}}, "cannot be built with {'wdith': 3}: "),
        ({"model": "test_mambaout", "drop_path": 2.0}, "drop_path must be in [0, 1), got 2.0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        TimmConfig(**settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
