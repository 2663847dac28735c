"""The losses of several labels per image, against golden numbers and a dense loop over a K-hot target."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlp.losses import in_parts
from vlp.losses.labels import (
    LABEL_LOSSES,
    AsymmetricLoss,
    BinaryLoss,
    LabelLoss,
    Labels,
    SoftMarginLoss,
    SoftmaxLoss,
    TwoWayLoss,
    two_way_class_loss,
    two_way_sample_loss,
)
from vlp.objectives.superclass import caption_labels

NONE = torch.tensor([], dtype=torch.int64)
VARIANTS = [
    *(cls() for cls in LABEL_LOSSES.values()),
    BinaryLoss(reduction="mean"),
    AsymmetricLoss(focus_gradient="pass"),
    AsymmetricLoss(gamma_positive=0, margin=0),
    AsymmetricLoss(gamma_negative=2.5, gamma_positive=2, margin=0.2, focus_gradient="pass"),
    TwoWayLoss(positive_temperature=1.0, negative_temperature=2.0),
]


@pytest.fixture(params=VARIANTS, ids=str)
def loss(request: pytest.FixtureRequest) -> LabelLoss:
    return request.param


def golden() -> tuple[Tensor, Labels]:
    """Of the released loss: 6, 7 and 0 play the special tokens, and are kept."""
    tokens = torch.tensor([[6, 1, 2, 7, 0], [6, 2, 2, 7, 0], [6, 3, 1, 4, 7]])
    logits = torch.sin(0.7 * torch.arange(24, dtype=torch.float64)).view(3, 8).float()
    return logits, caption_labels(tokens, torch.full((3,), 5), special_tokens=NONE)


def example(num_images: int = 12, num_classes: int = 30, scale: float = 2.0) -> tuple[Tensor, Labels, Tensor]:
    """Captions of 0 to 8 words, a word that all have, and words that none has."""
    B, K = num_images, num_classes
    generator = Generator().manual_seed(0)
    logits = scale * torch.randn(B, K, generator=generator)
    tokens = torch.randint(0, K - 5, (B, 8), generator=generator)
    lengths = torch.randint(2, 9, (B,), generator=generator)
    tokens[:, 0] = 3
    lengths[1] = 0
    idf = torch.rand(K, generator=generator)
    return logits.requires_grad_(), caption_labels(tokens, lengths, special_tokens=NONE), idf


def k_hot(labels: Labels, num_classes: int) -> Tensor:
    y = torch.zeros(len(labels.ids), num_classes, dtype=torch.float64)
    for row, ids, is_label in zip(y, *labels, strict=True):
        row[ids[is_label]] = 1
    return y


def dense_two_way(x: Tensor, y: Tensor, loss: TwoWayLoss) -> Tensor:
    """One list of logits after another, of those that have a label."""
    terms = []
    for row, target in zip(x, y, strict=True):
        if target.any():
            positive = (-row[target == 1] / loss.positive_temperature).logsumexp(dim=0)
            negative = row[target == 0] / loss.negative_temperature
            sum_ = negative.logsumexp(dim=0) if len(negative) else torch.tensor(-math.inf)
            terms.append(F.softplus(loss.positive_temperature * positive + loss.negative_temperature * sum_))
    return torch.stack(terms).mean()


def dense_loss(logits: Tensor, labels: Labels, idf: Tensor, loss: LabelLoss) -> Tensor:
    """The formulas of the papers in float64, with the whole target."""
    x, y = logits.double(), k_hot(labels, logits.shape[1])
    if isinstance(loss, SoftmaxLoss):
        target = idf * y
        target = target / target.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return -(target * x.log_softmax(dim=1)).sum(dim=1).mean()
    if isinstance(loss, TwoWayLoss):
        return dense_two_way(x, y, loss) + dense_two_way(x.T, y.T, loss)
    if isinstance(loss, BinaryLoss | SoftMarginLoss):
        p = x.sigmoid()
        losses = -(y * p.log() + (1 - y) * (1 - p).log())
        return losses.mean() if loss.reduction == "mean" else losses.sum(dim=1).mean()
    assert isinstance(loss, AsymmetricLoss)
    p = x.sigmoid()
    q = (1 - p + loss.margin).clamp(max=1)
    weight = y * (1 - p) ** loss.gamma_positive + (1 - y) * (1 - q) ** loss.gamma_negative
    weight = weight.detach() if loss.focus_gradient == "stop" else weight
    return -(weight * (y * p.log() + (1 - y) * q.log())).sum(dim=1).mean()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (BinaryLoss(reduction="mean"), 0.8215961456298828),
        (SoftMarginLoss(), 0.8215961456298828),
        (BinaryLoss(), 6.5727692),
        (AsymmetricLoss(), 7.283897399902344 / 3),
        (AsymmetricLoss(gamma_positive=0), 11.775521278381348 / 3),
        (TwoWayLoss(), 1.3406903743743896 + 7.855432987213135),
        (SoftmaxLoss(), 2.4445247650146484),
    ],
    ids=str,
)
def test_the_golden_numbers(loss: LabelLoss, expected: float) -> None:
    assert loss(*golden(), torch.ones(8)).item() == pytest.approx(expected, rel=1e-5)


def test_the_golden_numbers_of_both_ways() -> None:
    assert two_way_class_loss(*golden(), TwoWayLoss()).item() == pytest.approx(1.3406903743743896, rel=1e-5)
    assert two_way_sample_loss(*golden(), TwoWayLoss()).item() == pytest.approx(7.855432987213135, rel=1e-5)


@pytest.mark.parametrize("max_numbers", [2**22, 100, 1])
def test_loss_and_gradient_are_those_of_the_dense_formula(
    loss: LabelLoss, max_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the logits are reduced at once, in a few parts, or row by row."""
    monkeypatch.setattr(in_parts, "MAX_NUMBERS", max_numbers)
    logits, labels, idf = example()
    found, expected = loss(logits, labels, idf), dense_loss(logits, labels, idf, loss)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(3 * found, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(3 * expected, logits)[0], rtol=1e-4, atol=1e-7)


def test_the_order_of_images_and_of_words_changes_nothing(loss: LabelLoss) -> None:
    logits, labels, idf = example()
    images = torch.randperm(len(logits), generator=Generator().manual_seed(1))
    words = torch.randperm(labels.ids.shape[1], generator=Generator().manual_seed(2))
    shuffled = Labels(*(x[images][:, words] for x in labels))
    torch.testing.assert_close(loss(logits[images], shuffled, idf), loss(logits, labels, idf))


def test_repeated_words_change_nothing(loss: LabelLoss) -> None:
    logits = example(3)[0]
    once = torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]])
    twice = torch.tensor([[3, 1, 2, 1, 1], [4, 4, 4, 4, 0], [6, 5, 6, 0, 0]])
    labels = caption_labels(once, torch.tensor([3, 1, 2]), special_tokens=NONE)
    repeated = caption_labels(twice, torch.tensor([5, 4, 3]), special_tokens=NONE)
    torch.testing.assert_close(loss(logits, repeated, torch.ones(30)), loss(logits, labels, torch.ones(30)))


@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_large_logits_give_finite_losses_and_gradients(loss: LabelLoss, scale: float) -> None:
    logits, labels, idf = example(scale=scale)
    found = loss(logits, labels, idf)
    assert found.isfinite()
    assert torch.autograd.grad(found, logits)[0].isfinite().all()


def test_captions_without_words_give_finite_losses_and_gradients(loss: LabelLoss) -> None:
    logits, labels, idf = example()
    found = loss(logits, Labels(labels.ids, torch.zeros_like(labels.is_label)), idf)
    assert found.isfinite()
    assert torch.autograd.grad(found, logits)[0].isfinite().all()


def test_a_batch_whose_captions_have_every_class_gives_finite_gradients(loss: LabelLoss) -> None:
    logits = torch.randn(4, 6, generator=Generator().manual_seed(0), requires_grad=True)
    labels = Labels(torch.arange(6).repeat(4, 1), torch.ones(4, 6, dtype=torch.bool))
    assert torch.autograd.grad(loss(logits, labels, torch.ones(6)), logits)[0].isfinite().all()


def test_losses_of_bf16_logits_are_computed_in_float32(loss: LabelLoss) -> None:
    logits, labels, idf = example(32, 200)
    rounded = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(rounded, labels, idf)
    assert found.dtype == torch.float32
    expected = dense_loss(rounded, labels, idf, loss)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_nothing_but_the_logits_is_kept_for_the_gradient(loss: LabelLoss) -> None:
    """What the forward pass keeps, beyond the logits, is no larger than the labels or the vocabulary."""
    B, K = 64, 500
    logits, labels, idf = example(B, K)
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss(logits, labels, idf)
    assert kept.pop(logits.untyped_storage().data_ptr())
    assert max(kept.values(), default=0) <= 8 * max(B * 10, 2 * K)


def test_no_second_copy_of_the_logits_is_made_on_the_way(
    loss: LabelLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor that forward and backward make is smaller than the logits, except their gradient."""
    monkeypatch.setattr(in_parts, "MAX_NUMBERS", 2000)
    logits, labels, idf = example(64, 500)
    made = Sizes()
    with made:
        found = loss(logits, labels, idf)
        assert max(made.sizes) <= 8000
        made.sizes.clear()
        torch.autograd.grad(found, logits)
    large = [size for size in made.sizes if size > 8000]
    num_gradients = 3 if isinstance(loss, TwoWayLoss) else 1  # of both ways, and their sum
    assert large == [logits.numel()] * num_gradients


class Sizes(TorchDispatchMode):
    """Records how many numbers each operation's own results have; views take no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_tensors((args, kwargs))}
        made = [x for x in tree_tensors(result) if x.untyped_storage().data_ptr() not in given]
        self.sizes += [x.untyped_storage().nbytes() // x.element_size() for x in made]
        return result


def tree_tensors(tree: object) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


@pytest.mark.parametrize(
    "wrong", [{"gamma_negative": 0.5}, {"gamma_positive": -1}, {"margin": 1.0}, {"margin": -0.1}]
)
def test_impossible_settings_of_asl_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AsymmetricLoss(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="negative_temperature must be above 0, got 0"):
        TwoWayLoss(negative_temperature=0)
