"""Hugging Face's BEiT and Swin as oracles of ours; what holds for every encoder is a contract."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from vlp.encoders import IMAGE_ENCODERS, ImageEncoder
from vlp.encoders.beit import BEiTConfig
from vlp.losses.reconstruction import masked_mean
from vlp.masking import MaskStrategy
from vlp.masking.attention import AttentionMask
from vlp.masking.importance import ImportanceMask
from vlp.masking.random import RandomMask
from vlp.objectives import Vocabulary
from vlp.objectives.simmim import SimMIM, SimMIMConfig, hidden_share

SIZES: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 64, "patch_size": 16, "width": 48, "depth": 2, "num_heads": 4},
    "beit": {"image_size": 64, "patch_size": 16, "width": 48, "depth": 2, "num_heads": 4},
    "swin": {"image_size": 64, "width": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
}


def build(name: str) -> ImageEncoder:
    """Random weights everywhere, also where a table starts as zeros."""
    torch.manual_seed(0)
    encoder = IMAGE_ENCODERS[name](**SIZES[name]).build().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["beit", "swin"])
@pytest.mark.parametrize("mask", [AttentionMask(), ImportanceMask(score="attention")])
def test_a_mask_by_attention_needs_an_encoder_that_has_it(name: str, mask: MaskStrategy) -> None:
    message = f"mask {mask.name} reads attention, which image_encoder {name} does not offer"
    with pytest.raises(ValueError, match=message):
        SimMIMConfig().check(IMAGE_ENCODERS[name](), mask)
    SimMIMConfig().check(IMAGE_ENCODERS["vit"](), mask)
    SimMIMConfig().check(IMAGE_ENCODERS[name](), ImportanceMask(score="edges"))


def simmim(name: str) -> SimMIM:
    return SimMIMConfig().build(build(name), RandomMask(), vocabulary=Vocabulary(8, 5))


PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def block_names(state: dict[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    """The weights of one block under the names of Hugging Face."""
    renamed = {
        f"{theirs}.{b}.{kind}": state[f"{ours}.{a}.{kind}"]
        for a, b in PARTS.items()
        for kind in ("weight", "bias")
    }
    for part, third in zip("qkv", state[f"{ours}.attn.qkv.weight"].chunk(3), strict=True):
        renamed[f"{theirs}.attention.{part}_proj.weight"] = third
    return renamed


@torch.no_grad()
def test_the_last_norm_of_beit_can_be_left_out(images: Tensor) -> None:
    torch.manual_seed(0)
    normed = BEiTConfig(**SIZES["beit"]).build().eval()
    torch.manual_seed(0)
    raw = BEiTConfig(**SIZES["beit"], final_norm=False).build().eval()
    torch.testing.assert_close(normed.norm(raw(images)), normed(images))
    assert not torch.allclose(raw(images), normed(images))


def test_beit_is_that_of_hugging_face(images: Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    oracle = transformers.BeitModel(
        transformers.BeitConfig(
            image_size=64,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=192,
            layer_norm_eps=1e-6,
            use_mask_token=True,
            use_shared_relative_position_bias=True,
            use_mean_pooling=False,
        ),
        add_pooling_layer=False,
    ).eval()
    encoder = build("beit")
    state, token = encoder.state_dict(), torch.randn(48)
    renamed = {
        "embeddings.cls_token": state["class_token"],
        "embeddings.mask_token": token[None, None],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "shared_position_bias.relative_position_bias_table": state[
            "relative_positions.relative_position_bias_table"
        ],
    }
    for i in range(2):
        ours, theirs = f"blocks.{i}", f"layers.{i}"
        renamed |= block_names(state, ours, theirs)
        for a, b in [("gamma_1", "lambda_1"), ("gamma_2", "lambda_2")]:
            renamed[f"{theirs}.{b}"] = state[f"{ours}.{a}"]
        for part in "qv":
            renamed[f"{theirs}.attention.{part}_proj.bias"] = state[f"{ours}.attn.{part}_bias"]
    renamed |= {f"layernorm.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}
    oracle.load_state_dict(renamed)
    masked = torch.rand(3, 16) < 0.5
    expected = oracle(images, bool_masked_pos=masked).last_hidden_state
    states = encoder.encode_replaced(images, masked, token)
    torch.testing.assert_close(states, expected[:, 1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_simmim_on_swin_is_that_of_hugging_face(images: Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    oracle = transformers.SwinForMaskedImageModeling(
        transformers.SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            encoder_stride=8,
        )
    ).eval()
    model = simmim("swin").eval()
    state = model.state_dict()
    names = {
        "image_encoder.patch_embed.proj": "swin.embeddings.patch_embeddings.projection",
        "image_encoder.patch_embed.norm": "swin.embeddings.norm",
        "image_encoder.norm": "swin.layernorm",
        "head.0": "decoder.0",
        "image_encoder.layers.1.downsample.norm": "swin.encoder.layers.0.downsample.norm",
    }
    renamed = {f"{b}.{kind}": state[f"{a}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
    renamed["swin.embeddings.mask_token"] = state["mask_token"][None, None]
    merging = "layers.{}.downsample.reduction.weight"
    renamed["swin.encoder." + merging.format(0)] = state["image_encoder." + merging.format(1)]
    for i in range(4):
        ours, theirs = (
            f"{root}layers.{i // 2}.blocks.{i % 2}" for root in ("image_encoder.", "swin.encoder.")
        )
        renamed |= block_names(state, ours, theirs)
        table = "relative_position_bias_table"
        renamed[f"{theirs}.attention.relative_position_bias.{table}"] = state[f"{ours}.attn.{table}"]
        for part, third in zip("qkv", state[f"{ours}.attn.qkv.bias"].chunk(3), strict=True):
            renamed[f"{theirs}.attention.{part}_proj.bias"] = third
    oracle.load_state_dict(renamed)
    masked = torch.rand(3, 256) < 0.5
    expected = oracle(images, bool_masked_pos=masked)
    predictions = model.predict(images, masked)
    torch.testing.assert_close(predictions, expected.reconstruction, atol=1e-5, rtol=1e-5)
    loss = masked_mean(model.target.errors(predictions, images), hidden_share(masked, 64))
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
