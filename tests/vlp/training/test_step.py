"""One training step: its randomness, its precision, its clipping."""

from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor, nn

from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking.random import RandomMask
from vlp.objectives import Batch, Objective, Vocabulary
from vlp.objectives.superclass import SuperClassConfig
from vlp.training.bad_steps import Outcome
from vlp.training.length import LengthConfig
from vlp.training.step import TrainingConfig, backward, build_scaler, forward, update


@pytest.fixture
def model() -> Objective:
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=32, patch_size=4, width=16, depth=1, num_heads=2))
    return SuperClassConfig(idf="none").build(encoder, RandomMask(), vocabulary=Vocabulary(20, 6))


@pytest.fixture
def batch() -> Batch:
    generator = Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    return Batch(images, torch.randint(0, 20, (4, 6), generator=generator), torch.tensor([6, 3, 4, 2]))


def loss(model: Objective, batch: Batch, *, step: int, seed: int, precision: str = "fp32") -> float:
    config = TrainingConfig(length=LengthConfig(steps=100), precision=precision)  # pyright: ignore[reportArgumentType]
    return forward(model, batch, config, step=step, seed=seed).loss.item()


def test_the_step_and_the_seed_decide_the_masks(model: Objective, batch: Batch) -> None:
    first = loss(model, batch, step=3, seed=1)
    torch.manual_seed(99)  # the global generator must not matter
    loss(model, batch, step=7, seed=1)
    assert loss(model, batch, step=3, seed=1) == first
    others = {loss(model, batch, step=step, seed=seed) for step, seed in ((4, 1), (3, 2), (1, 3), (0, 0))}
    assert len(others | {first}) == 5


def test_bf16_gives_nearly_the_loss_of_fp32_and_fp32_weights(model: Objective, batch: Batch) -> None:
    fp32, bf16 = (loss(model, batch, step=0, seed=0, precision=p) for p in ("fp32", "bf16"))
    assert bf16 == pytest.approx(fp32, rel=0.02)
    assert bf16 != fp32
    config = TrainingConfig(precision="bf16")
    forward(model, batch, config, step=0, seed=0).loss.backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_the_scale_of_fp16_falls_until_the_gradient_fits_and_no_lower() -> None:
    config, model = TrainingConfig(precision="fp16"), nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters())
    scaler = build_scaler(config, torch.device("cpu"))
    scales = []
    norm = torch.tensor(torch.inf)
    for _ in range(20):
        with torch.autocast("cpu", torch.float16):
            loss = 100 * model(torch.ones(1)).sum()  # 100 x the scale is a number of fp16 below 655
        norm = backward(model, loss, optimizer, scaler)
        scales.append(scaler.get_scale())
        if not Outcome.ask(loss, norm, scaler).has_overflowed:
            break
        assert not norm.isfinite()
        scaler.update()
    assert scales == [2.0**k for k in range(16, 8, -1)]
    assert norm == 100


def test_a_loss_that_is_no_number_is_no_matter_of_the_scale() -> None:
    model = nn.Linear(1, 1)
    scaler = build_scaler(TrainingConfig(precision="fp16"), torch.device("cpu"))
    loss = model(torch.tensor([torch.nan])).sum()
    norm = backward(model, loss, torch.optim.SGD(model.parameters()), scaler)
    assert not Outcome.ask(loss, norm, scaler).has_overflowed
    finite: list[tuple[float, float, Literal["bf16", "fp32", "fp16"]]] = [
        (1.0, torch.inf, "bf16"),
        (1.0, torch.inf, "fp32"),
        (1.0, 1.0, "fp16"),
    ]
    for loss, norm, precision in finite:
        scaler = build_scaler(TrainingConfig(precision=precision), torch.device("cpu"))
        assert not Outcome.ask(torch.tensor(loss), torch.tensor(norm), scaler).has_overflowed


class Recorder(nn.Module):
    """A model that reports the progress that it is told."""

    def forward(self, batch: Batch, *, progress: float, generator: Generator) -> tuple[float, Tensor]:
        return progress, torch.rand(3, generator=generator)


def test_progress_is_the_share_of_the_steps_that_is_done(batch: Batch) -> None:
    config = TrainingConfig(length=LengthConfig(steps=8))
    told = [forward(Recorder(), batch, config, step=step, seed=0)[0] for step in range(8)]
    assert told == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]


def linear_step(max_norm: float | None, *, lr: float = 0.2) -> tuple[Tensor, float]:
    """One step of gradient descent, at half the rate, from 0 along (3, 4): the weight, the reported norm."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD([{"params": model.parameters(), "lr_scale": 0.5}], lr=77.0)
    model.weight.grad = torch.full((1, 2), 1e6)  # of an earlier step
    norm = update(model, model(torch.tensor([3.0, 4.0])).sum(), optimizer, lr=lr, max_norm=max_norm)
    return model.weight.detach()[0], norm.item()


@pytest.mark.parametrize(
    ("max_norm", "weight"), [(None, [-0.3, -0.4]), (10.0, [-0.3, -0.4]), (1.0, [-0.06, -0.08])]
)
def test_a_gradient_longer_than_the_limit_is_scaled_to_it(
    max_norm: float | None, weight: list[float]
) -> None:
    found, norm = linear_step(max_norm)
    assert found.tolist() == pytest.approx(weight, rel=1e-4)
    assert norm == pytest.approx(5.0)


def test_the_rate_is_that_of_the_step_times_the_share_of_the_group() -> None:
    assert linear_step(None, lr=0.01)[0].tolist() == pytest.approx([-0.015, -0.02])


@pytest.mark.parametrize("settings", [{"max_grad_norm": -1.0}, {"batch_size": 0}])
def test_an_impossible_setting_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainingConfig(**settings)
