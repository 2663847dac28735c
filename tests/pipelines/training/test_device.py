"""What a training step asks of a GPU and sends to it, told by tensors that only claim to be on one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.tracking.journal import Journal
from pipelines.training.bad_steps import BadSteps
from pipelines.training.hooks import Metrics
from pipelines.training.step import TrainingStep
from vlp.contracts import settings
from vlp.core.batch import Batch
from vlp.core.normalization import normalize
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import rank_batches
from vlp.encoders.vit import ViTConfig
from vlp.masking import STRATEGIES, MaskStrategy
from vlp.objectives import OBJECTIVES, Objective, ObjectiveConfig, Vocabulary
from vlp.run import RunConfig
from vlp.training import step as steps
from vlp.training.bad_steps import StepHistory, Watch
from vlp.training.ema import EMA, EMAConfig
from vlp.training.optim import build_optimizer
from vlp.training.step import build_scaler

B, SIDE, CUDA = 4, 32, torch.device("cuda")
SENDERS = (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor)
"""What makes a tensor of numbers that this machine knows; a GPU waits for a copy of them."""
GIVEN = {name: settings.MASKS.get(name, [{}]) for name in STRATEGIES}
EACH = [STRATEGIES[name](**given[0]) for name, given in GIVEN.items()]
OF_OTHER_VIEWS = list({mask.views: mask for mask in EACH}.values())
MASKS = {"bf16": EACH, "fp32": OF_OTHER_VIEWS, "fp16": OF_OTHER_VIEWS}
"""By precision, which a mask meets in what it looks at alone."""


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
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each time that numbers are asked back from the device, how many; the answers are 1."""
    found: list[int] = []

    def answer(values: Tensor) -> list[list[float]]:
        assert values.device.type == "cuda"
        found.append(values.numel())
        rows, columns = values.shape
        return [[1.0] * columns for _ in range(rows)]

    monkeypatch.setattr(FakeTensor, "tolist", answer)
    return found


MakeStep = Callable[[str], TrainingStep]


@pytest.fixture
def make_step(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> MakeStep:
    """The step of a training worker, by the precision of its run."""

    def make(precision: str) -> TrainingStep:
        training = {"precision": precision, "max_grad_norm": 1.0, "on_bad_step": {"spike": 10.0}}
        run = tiny_run(training=training)
        shards = open_shards(run.data, captioned=True)
        pairs = TrainingPairs(shards, run.data, image_size=SIDE, seed=0)
        order = data_order(shards, run.data, seed=0, batch_size=8)
        tokenizer = run.tokenizer.build()
        bad_steps = BadSteps(run, tmp_path, Journal(tmp_path), "tiny", pairs, order, tokenizer)
        watch = Watch(StepHistory(), run.training.on_bad_step, torch.device("cpu"))
        return TrainingStep(run, torch.nn.Identity(), watch, bad_steps)

    return make


def build(config: ObjectiveConfig, mask: MaskStrategy) -> Objective:
    encoder = ViTConfig(image_size=SIDE, patch_size=4, width=16, depth=1, num_heads=2).build()
    return config.build(encoder, mask, vocabulary=Vocabulary(30, 8, (28, 29)))


def state_on_device(model: Objective, run: RunConfig) -> TrainingState:
    model._apply(lambda x: torch.empty(x.shape, dtype=x.dtype, device=CUDA))
    ema, scaler = EMA(model, EMAConfig(decay=0.5)), build_scaler(run.training, CUDA)
    return TrainingState(model, build_optimizer(model, run.optimizer), ema, model.mask, scaler=scaler)


def batch_on_device() -> Batch:
    pixels = torch.empty(B, 3, SIDE, SIDE, dtype=torch.uint8, device=CUDA)
    tokens, lengths = (torch.empty(shape, dtype=torch.int64, device=CUDA) for shape in ((B, 8), (B,)))
    return Batch(normalize(pixels, "imagenet"), tokens, lengths)


Check = Callable[[TrainingStep, Objective], None]


@pytest.fixture
def check(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Have a model go through two steps."""

    def check(step: TrainingStep, model: Objective) -> None:
        step.model = model
        monkeypatch.setattr(Tensor, "backward", lambda loss: fill_gradients(model))
        with FakeTensorMode():
            state, batch = state_on_device(model, step.config), batch_on_device()
            step.watch = Watch(state.history, step.config.training.on_bad_step, CUDA)
            metrics: Metrics = {}
            asked.clear()
            for _ in range(2):  # the optimizer's first step makes its state
                with NothingSent():
                    metrics = step(state, batch)
            assert asked == []
            step.ask(state)
            assert asked == [6]  # loss, norm and scale of both steps at once
        assert state.step == 2
        assert state.history.num_skipped == 0
        tensors = [value for value in metrics.values() if isinstance(value, Tensor)]
        assert {x.device.type for x in tensors} == {"cuda"}
        assert {x.device.type for x in model.parameters()} == {"cuda"}

    return check


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize("precision", sorted(MASKS))
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_step_asks_the_device_nothing_and_sends_it_nothing(
    name: str, precision: str, make_step: MakeStep, check: Check
) -> None:
    """Any other value asked for, a shape that data decide and tensors of two devices end in an error."""
    config, step = OBJECTIVES[name](**settings.OBJECTIVES.get(name, {})), make_step(precision)
    for mask in MASKS[precision]:
        if mask.name != "none" or not config.rebuilds_patches:
            check(step, build(config, mask))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize("name", [name for name, given in GIVEN.items() if len(given) > 1])
def test_no_setting_of_a_mask_changes_that(name: str, make_step: MakeStep, check: Check) -> None:
    config, step = OBJECTIVES["contrastive"](**settings.OBJECTIVES["contrastive"]), make_step("bf16")
    for given in GIVEN[name][1:]:
        check(step, build(config, STRATEGIES[name](**given)))


def fill_gradients(model: Objective) -> None:
    """In place of autograd, which wants a real device."""
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)


@pytest.mark.filterwarnings("ignore:.*no accelerator is found")
def test_batches_are_on_the_device_without_a_question(
    tiny_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(value: Tensor) -> int:
        assert value.device.type == "cpu"  # the seed of the loader's processes
        return 0

    monkeypatch.setattr(FakeTensor, "item", answer, raising=False)
    run = tiny_run()
    shards = open_shards(run.data, captioned=True)
    pairs = TrainingPairs(shards, run.data, image_size=SIDE, seed=0)
    order = data_order(shards, run.data, seed=0, batch_size=8)
    draws = rank_batches(order, steps=range(3), rank=0, world_size=1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loader = BatchLoader(pairs, draws, run.tokenizer.build(), num_workers=0, device=CUDA)
        batches = list(loader)
    assert len(batches) == 3
    for batch in batches:
        assert {tensor.device.type for tensor in batch[:3]} == {"cuda"}
        assert batch.images.dtype == torch.float32
