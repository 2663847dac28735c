"""What a forward pass asks of a GPU and sends to it, told by tensors that only claim to be on one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from vlp.contracts import settings
from vlp.core.batch import Batch
from vlp.core.normalization import normalize
from vlp.encoders.vit import ViTConfig
from vlp.masking import STRATEGIES
from vlp.objectives import OBJECTIVES, Vocabulary
from vlp.training import step as steps
from vlp.training.length import LengthConfig
from vlp.training.step import TrainingConfig, forward

B, SIDE, CUDA = 4, 32, torch.device("cuda")
SENDERS = (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor)
"""What makes a tensor of numbers that this machine knows; a GPU waits for a copy of them."""
MASKS = [STRATEGIES[name](**given) for name in STRATEGIES for given in settings.MASKS.get(name, [{}])]


class NothingSent(TorchFunctionMode):
    """Refuses to copy single numbers to a device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func not in SENDERS, f"{func.__name__} sends numbers to the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What of PyTorch looks for a real GPU."""
    monkeypatch.setattr(steps, "Generator", lambda device: torch.Generator())
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def batch_on_device() -> Batch:
    pixels = torch.empty(B, 3, SIDE, SIDE, dtype=torch.uint8, device=CUDA)
    tokens, lengths = (torch.empty(shape, dtype=torch.int64, device=CUDA) for shape in ((B, 8), (B,)))
    return Batch(normalize(pixels, "imagenet"), tokens, lengths)


@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_forward_pass_asks_the_device_nothing_and_sends_it_nothing(name: str, precision: Any) -> None:
    """A value asked for, a shape that data decide and tensors of two devices end in an error."""
    config = OBJECTIVES[name](**settings.OBJECTIVES.get(name, {}))
    training = TrainingConfig(length=LengthConfig(steps=10), precision=precision)
    for mask in MASKS:
        if config.rebuilds_patches and mask.name == "none":
            continue
        encoder = ViTConfig(image_size=SIDE, patch_size=4, width=16, depth=1, num_heads=2).build()
        model = config.build(encoder, mask, vocabulary=Vocabulary(30, 8, (28, 29)))
        with FakeTensorMode():
            model._apply(lambda x: torch.empty(x.shape, dtype=x.dtype, device=CUDA))
            with NothingSent():
                found = forward(model, batch_on_device(), training, step=7, seed=0)
        assert {x.device.type for x in (found.loss, *found.metrics.values())} == {"cuda"}
