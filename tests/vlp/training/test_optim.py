"""The optimizers: their formulas, what decays, and which layers learn slowly."""

from typing import Any, ClassVar

import pytest
import torch

from vlp.encoders import IMAGE_ENCODERS
from vlp.encoders.beit import BEiTConfig
from vlp.encoders.text import TextConfig
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking.none import NoMask
from vlp.objectives import Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.superclass import SuperClassConfig
from vlp.training.optim import AdamWConfig, LARSConfig, build_optimizer, learning_rate_scales


def test_weights_and_positions_decay_but_no_bias_norm_class_token_or_logit_scale() -> None:
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2))
    config = ContrastiveConfig(embed_dim=8, text_encoder=TextConfig(width=16, depth=1, num_heads=2))
    model = config.build(encoder, NoMask(), vocabulary=Vocabulary(11, 6))
    optimizer = build_optimizer(model, AdamWConfig(weight_decay=0.2))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay.pop(id(p)) for name, p in model.named_parameters()}
    assert not decay, "the optimizer holds what is not a parameter"
    undecayed = {name for name, weight_decay in names.items() if weight_decay == 0}
    vectors = ("bias", "norm.weight", "norm1.weight", "norm2.weight", "norm_pre.weight")
    assert undecayed == {
        name for name in names if name.endswith((*vectors, "class_token", "log_logit_scale"))
    }
    assert {names[name] for name in names if name not in undecayed} == {0.2}


class Matrix(torch.nn.Linear):
    """A model of nothing but one linear layer."""

    encoders: ClassVar = {}

    def __init__(self) -> None:
        super().__init__(2, 2)


def test_one_update_is_adamws_formula() -> None:
    model: Any = Matrix()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
        model.bias.fill_(2.0)
    config = AdamWConfig(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.5)
    optimizer = build_optimizer(model, config)
    before = model.weight.detach().clone()
    gradient = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    model.weight.grad, model.bias.grad = gradient.clone(), torch.full((2,), 0.25)
    optimizer.step()
    # After one step the corrected moments are the gradient and its square.
    expected = before * (1 - 0.1 * 0.5) - 0.1 * gradient / (gradient.abs() + 1e-3)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert model.bias.tolist() == pytest.approx([2 - 0.1 * 0.25 / (0.25 + 1e-3)] * 2)


@pytest.mark.parametrize(
    "settings", [{"lr": 0.0}, {"lr": -1.0}, {"weight_decay": -0.1}, {"layer_decay": 0.0}]
)
def test_an_impossible_setting_is_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        AdamWConfig(**settings)  # pyright: ignore[reportArgumentType]


def test_lars_takes_the_steps_of_mae_s_release() -> None:
    model: Any = Matrix()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        model.bias.copy_(torch.tensor([1.0, -1.0]))
    optimizer = build_optimizer(model, LARSConfig(lr=0.1))
    for _ in range(2):
        model.weight.grad = torch.tensor([[0.5, -0.5], [1.0, 0.0]])
        model.bias.grad = torch.tensor([0.1, 0.2])
        optimizer.step()
    weight = torch.tensor([[0.99935156, 2.0006485], [2.9987030, 4.0]])
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-6, atol=0)
    assert model.bias.tolist() == pytest.approx([0.971, -1.058])


SCALES = [0.00369721, 0.00568801, 0.00875078, 0.01346274, 0.02071191, 0.03186448, 0.04902228]
SCALES += [0.07541889, 0.11602906, 0.17850625, 0.274625, 0.4225, 0.65, 1.0]


def test_layers_learn_at_the_rates_of_mae_s_release() -> None:
    """The golden numbers of ViT-B with 0.65: embeddings, twelve blocks, and what follows them."""
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=16, depth=12, num_heads=2))
    model = SuperClassConfig().build(encoder, NoMask(), vocabulary=Vocabulary(11, 6))
    scales = dict(learning_rate_scales(model.encoders, 0.65))
    for name in ("patch_embed.proj.weight", "class_token", "positions", "norm_pre.bias"):
        assert scales[f"image_encoder.{name}"] == pytest.approx(SCALES[0], rel=1e-5)
    for i in range(12):
        assert scales[f"image_encoder.blocks.{i}.mlp.fc1.weight"] == pytest.approx(SCALES[i + 1], rel=1e-5)
    assert scales["image_encoder.norm.weight"] == 1.0
    optimizer = build_optimizer(model, AdamWConfig(layer_decay=0.65))
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {id(p): scales.get(name, 1.0) for name, p in model.named_parameters()}


@pytest.mark.parametrize("encoder", ["vit", "beit", "swin"])
def test_a_layer_never_learns_slower_than_the_one_below(encoder: str) -> None:
    sizes = {"swin": {"depths": (2, 2), "num_heads": (1, 2), "width": 8, "window_size": 2, "patch_size": 4}}
    small = {"width": 8, "depth": 3, "num_heads": 2, "patch_size": 4}
    config = IMAGE_ENCODERS[encoder](image_size=32, **sizes.get(encoder, small))
    built = config.build()
    scales = [
        scale
        for name, scale in learning_rate_scales({"image_encoder": built}, 0.5)
        if name.removeprefix("image_encoder.") not in built.shared_by_blocks
    ]
    depth = 4 if encoder == "swin" else 3
    assert scales == sorted(scales)
    assert set(scales) == {0.5**i for i in range(depth + 2)}


def test_what_all_blocks_share_learns_at_the_full_rate() -> None:
    """As the table of BEiT's relative positions does in SimMIM's release."""
    encoder = BEiTConfig(image_size=32, patch_size=8, width=8, depth=3, num_heads=2).build()
    scales = dict(learning_rate_scales({"image_encoder": encoder}, 0.65))
    assert scales["image_encoder.relative_positions.relative_position_bias_table"] == 1
    assert scales["image_encoder.class_token"] == pytest.approx(0.65**4)
    assert scales["image_encoder.blocks.0.attn.proj.weight"] == pytest.approx(0.65**3)


def test_what_a_recipe_names_decays_against_the_rule() -> None:
    """MAE decays its tokens; SimMIM spares the bias tables of Swin."""
    config = AdamWConfig(decayed=("mask_token",), undecayed=("relative_position_bias_table",))
    vector, table = torch.nn.Parameter(torch.zeros(8)), torch.nn.Parameter(torch.zeros(4, 4))
    assert config.decays("mask_token", vector)
    assert not config.decays("class_token", vector)
    assert not config.decays("layers.0.attn.relative_position_bias_table", table)
    assert config.decays("layers.0.attn.qkv.weight", table)
