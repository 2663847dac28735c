"""The optimizer is CLIP's: its schedule, and what decays."""

import pytest
import torch

from vlp.encoders.text import TextConfig
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking.none import NoMask
from vlp.objectives import Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.optim import OptimizerConfig, build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 2.5e-7), (1999, 5e-4), (2000, 5e-4), (86_696, 2.5e-4), (171_391, 4.2996e-14)],
)
def test_the_schedule_is_that_of_open_clip(step: int, expected: float) -> None:
    config = OptimizerConfig(lr=5e-4, warmup_steps=2000)
    assert learning_rate(config, step, total_steps=171_392) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("warmup", [0, 1, 10, 99, 100, 500])
def test_the_rate_rises_then_falls_and_is_never_0_whatever_the_warmup(warmup: int) -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=warmup)
    rates = [learning_rate(config, step, total_steps=100) for step in range(100)]
    top = min(warmup, 100)
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_weights_and_positions_decay_but_no_bias_norm_class_token_or_logit_scale() -> None:
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2))
    config = ContrastiveConfig(embed_dim=8, text_encoder=TextConfig(width=16, depth=1, num_heads=2))
    model = config.build(encoder, NoMask(), vocabulary=Vocabulary(11, 6))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.2))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay.pop(id(p)) for name, p in model.named_parameters()}
    assert not decay, "the optimizer holds what is no parameter"
    undecayed = {name for name, weight_decay in names.items() if weight_decay == 0}
    vectors = ("bias", "norm.weight", "norm1.weight", "norm2.weight", "norm_pre.weight")
    assert undecayed == {
        name for name in names if name.endswith((*vectors, "class_token", "log_logit_scale"))
    }
    assert {names[name] for name in names if name not in undecayed} == {0.2}


def test_one_update_is_adamws_formula() -> None:
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
        model.bias.fill_(2.0)
    config = OptimizerConfig(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.5)
    optimizer = build_optimizer(model, config)
    before = model.weight.detach().clone()
    gradient = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    model.weight.grad, model.bias.grad = gradient.clone(), torch.full((2,), 0.25)
    optimizer.step()
    # After one step the corrected moments are the gradient and its square.
    expected = before * (1 - 0.1 * 0.5) - 0.1 * gradient / (gradient.abs() + 1e-3)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert model.bias.tolist() == pytest.approx([2 - 0.1 * 0.25 / (0.25 + 1e-3)] * 2)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"lr": -1.0}, {"warmup_steps": -1}])
def test_an_impossible_setting_is_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        OptimizerConfig(**settings)  # pyright: ignore[reportArgumentType]
