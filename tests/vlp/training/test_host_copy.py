"""A copy stays what it was when it was taken, whatever becomes of the tensors."""

from typing import Any

import torch
from torch import Tensor, nn

from vlp.training.host_copy import HostCopy


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module with a buffer, and an optimizer with a state of several types."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.8, 0.9))
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [part for key in value for part in (key, *flat(value[key]))]
    if isinstance(value, list):
        return [part for one in value for part in flat(one)]
    return [value.tolist() if isinstance(value, Tensor) else value]


def test_a_copy_is_the_state_of_its_moment() -> None:
    model, optimizer = trained()
    memory = HostCopy()
    copied: list[Any] = []
    expected: list[Any] = []
    for _ in range(2):
        state = [model.state_dict(), optimizer.state_dict()]
        expected = flat(state)
        copied = memory.take(state)
        step(model, optimizer)
        assert flat(copied) == expected
        assert flat([model.state_dict(), optimizer.state_dict()]) != expected
    other, other_optimizer = trained()
    other.load_state_dict(copied[0])
    other_optimizer.load_state_dict(copied[1])
    assert flat([other.state_dict(), other_optimizer.state_dict()]) == expected
    assert vars(copied[0])["_metadata"] == vars(model.state_dict())["_metadata"]


def test_the_memory_of_a_copy_is_used_again_and_grows_with_its_tensors() -> None:
    memory = HostCopy()
    first = memory.take({"a": torch.ones(3), "b": [torch.zeros(2)]})
    again = memory.take({"a": torch.zeros(3), "b": [torch.ones(5)]})
    assert first["a"].data_ptr() == again["a"].data_ptr()
    assert flat(again) == ["a", [0.0] * 3, "b", [1.0] * 5]
