"""The optimizers: their formulas, what decays, and which layers learn slowly."""

import copy
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
from vlp.training.optim import AdamWConfig, LARSConfig, MuonConfig, build_optimizer, learning_rate_scales


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
    blocks: ClassVar = ()

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


def small_model() -> Any:
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=16, depth=2, num_heads=2))
    config = ContrastiveConfig(embed_dim=8, text_encoder=TextConfig(width=16, depth=1, num_heads=2))
    return config.build(encoder, NoMask(), vocabulary=Vocabulary(11, 6))


def with_gradients(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_takes_the_matrices_of_blocks_and_adamw_all_other_weights() -> None:
    model = small_model()
    optimizer = build_optimizer(model, MuonConfig(lr=0.02, adamw_lr=1e-3))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    hidden = {name for name, p in model.named_parameters() if groups.pop(id(p))["kind"] == "hidden"}
    assert not groups
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = ("image_encoder.blocks.0", "image_encoder.blocks.1", "text_encoder.blocks.0")
    assert hidden == {f"{block}.{layer}.weight" for block in blocks for layer in layers}


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Jordan's five steps, in float64, written for wide matrices; a tall one is turned."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_muon_takes_the_steps_of_its_formula(scale: Any) -> None:
    model = small_model()
    config = MuonConfig(lr=0.02, weight_decay=0.1, scale=scale, adamw_lr=1e-3)
    optimizer = build_optimizer(model, config)
    matrices = {name: p for name, p in model.named_parameters() if "blocks" in name and p.ndim == 2}
    expected = {name: p.detach().double().clone() for name, p in matrices.items()}
    averages = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in range(3):
        with_gradients(model, step)
        for name, p in matrices.items():
            assert p.grad is not None
            averages[name] = 0.95 * averages[name] + 0.05 * p.grad.double()
            ahead = 0.95 * averages[name] + 0.05 * p.grad.double()
            rows, columns = p.shape
            length = max(1, rows / columns) ** 0.5 if scale == "original" else 0.2 * max(rows, columns) ** 0.5
            expected[name] = expected[name] * (1 - 0.02 * 0.1) - 0.02 * length * orthogonalized(ahead)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * group["lr_scale"]
        optimizer.step()
    for name, p in matrices.items():
        # bf16 has three digits, and the steps are not contractions
        torch.testing.assert_close(p.detach().double(), expected[name], atol=6e-3, rtol=0)


def take_steps(model: Any, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
    for step in steps:
        with_gradients(model, step)
        for optimizer in optimizers:
            optimizer.step()


def test_muon_and_adamw_are_those_of_pytorch_and_go_on_to_the_bit() -> None:
    """Each on its own parameters; through a checkpoint after the second step."""
    models, config = [small_model() for _ in range(3)], MuonConfig(lr=0.02, adamw_lr=1e-3)
    together, resumed, apart = models
    optimizers = [build_optimizer(model, config) for model in (together, resumed)]
    groups: dict[str, list[Any]] = {"hidden": [], "matrix": [], "vector": []}
    names = {id(p): name for name, p in together.named_parameters()}
    theirs = dict(apart.named_parameters())
    for group in optimizers[0].param_groups:
        groups[group["kind"]] += [theirs[names[id(p)]] for p in group["params"]]
    others = [
        {"params": groups["matrix"], "weight_decay": 0.01},
        {"params": groups["vector"], "weight_decay": 0},
    ]
    parts = [
        torch.optim.Muon(groups["hidden"], lr=0.02, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, fused=True),
    ]
    for group in optimizers[0].param_groups:
        group["lr"] = 0.02 * group["lr_scale"]
    take_steps(together, [optimizers[0]], range(2))
    resumed.load_state_dict(together.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    take_steps(together, [optimizers[0]], range(2, 4))
    take_steps(resumed, [optimizers[1]], range(2, 4))
    take_steps(apart, parts, range(4))
    for mine, again, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-7, rtol=1e-6)
        assert torch.equal(mine, again)
