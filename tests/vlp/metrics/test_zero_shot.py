"""Zero-shot classification against scikit-learn and cases worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    top_k_accuracy_score,
)

from vlp.metrics.outcomes import Detections
from vlp.metrics.zero_shot import class_embeddings, out_of_distribution_outcomes, zero_shot_outcomes

AXES = {"a cat": [3.0, 0.0], "one cat": [0.0, 0.5], "a dog": [-1.0, 0.0], "one dog": [-2.0, 0.0]}


def encode_text(prompts):
    return torch.tensor([AXES[prompt] for prompt in prompts])


def test_every_prompt_weighs_the_same_whatever_its_length():
    embeddings = class_embeddings(encode_text, ["cat", "dog"], ["a {}", "one {}"])
    assert torch.allclose(embeddings, torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))


def test_template_without_a_place_for_the_class_is_an_error():
    with pytest.raises(ValueError, match="'a cat'"):
        class_embeddings(encode_text, ["cat"], ["a cat"])


def test_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    classes = F.normalize(torch.randn(8, 12, generator=generator), dim=1)
    labels = torch.randint(0, 8, (300,), generator=generator)
    images = F.normalize(classes[labels] + 0.4 * torch.randn(300, 12, generator=generator), dim=1)
    logits = images @ classes.T
    metrics = zero_shot_outcomes(images, labels, classes, max_similarities=64 * 8).metrics()
    assert metrics == pytest.approx(
        {
            "acc1": accuracy_score(labels, logits.argmax(dim=1)),
            "acc5": top_k_accuracy_score(labels, logits, k=5),
            "mean_per_class_recall": balanced_accuracy_score(labels, logits.argmax(dim=1)),
        }
    )
    assert 0.2 < metrics["acc1"] < 0.95


def test_mean_per_class_recall_weighs_classes_not_images():
    """Class 0 has three images, all right; class 1 has one, wrong; class 2 has none."""
    images = torch.eye(3)[[0, 0, 0, 2]]
    metrics = zero_shot_outcomes(images, torch.tensor([0, 0, 0, 1]), torch.eye(3)).metrics()
    assert metrics == pytest.approx({"acc1": 0.75, "mean_per_class_recall": 0.5})


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_collapsed_embeddings_get_no_credit(value):
    metrics = zero_shot_outcomes(
        torch.full((10, 4), value), torch.arange(10), torch.full((10, 4), value)
    ).metrics()
    assert set(metrics.values()) == {0.0}


def test_classes_that_no_image_may_be_of_are_masked():
    """As ImageNet-A is measured: logits of all others are -inf."""
    generator = torch.Generator().manual_seed(1)
    images, classes = (F.normalize(torch.randn(n, 12, generator=generator), dim=1) for n in (200, 9))
    among = [7, 1, 4, 3, 0, 8]
    labels = torch.tensor(among)[torch.randint(0, len(among), (200,), generator=generator)]
    logits = torch.full((200, 9), -torch.inf)
    logits[:, among] = (images @ classes.T)[:, among]
    found = zero_shot_outcomes(images, labels, classes, among=among)
    assert found.metrics() == pytest.approx(
        {
            "acc1": accuracy_score(labels, logits.argmax(dim=1)),
            "acc5": (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1).double().mean().item(),
            "mean_per_class_recall": balanced_accuracy_score(labels, logits.argmax(dim=1)),
        }
    )
    assert found.metrics()["acc1"] > zero_shot_outcomes(images, labels, classes).metrics()["acc1"]


def test_doubt_tells_images_of_no_class_as_scikit_learn_counts():
    generator = torch.Generator().manual_seed(2)
    classes = F.normalize(torch.randn(5, 12, generator=generator), dim=1)
    labels = torch.randint(-1, 5, (300,), generator=generator)
    noise = torch.randn(300, 12, generator=generator)
    images = F.normalize(torch.where(labels[:, None] < 0, noise, 2 * classes[labels] + noise), dim=1)
    outcomes = out_of_distribution_outcomes(images, labels, classes, temperature=0.05)
    probabilities = ((images @ classes.T).double() / 0.05).softmax(dim=1)
    doubt = 1 - probabilities.amax(dim=1)
    assert outcomes.metrics() == pytest.approx({"aupr": average_precision_score(labels < 0, doubt)}, rel=1e-6)
    assert outcomes.metrics()["aupr"] > 2 * (labels < 0).double().mean()


def test_every_draw_of_a_precision_is_that_of_scikit_learn_with_weights():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 20, (80,), generator=generator).double()  # with ties
    is_positive = torch.rand(80, generator=generator) < scores / 30 + 0.1
    counts = torch.randint(0, 4, (6, 80), generator=generator).double()
    found = Detections(scores, is_positive).statistics()["aupr"](counts)
    expected = [average_precision_score(is_positive, scores, sample_weight=row) for row in counts]
    assert found.tolist() == pytest.approx(expected)


def test_a_collapsed_model_tells_nothing():
    labels = torch.tensor([-1, 0, 1, 2])
    outcomes = out_of_distribution_outcomes(torch.ones(4, 4), labels, torch.ones(3, 4), temperature=0.01)
    assert outcomes.metrics() == {"aupr": 0.25}
