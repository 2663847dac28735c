"""Zero-shot classification against scikit-learn and cases worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from vlp.metrics.zero_shot import class_embeddings, zero_shot_outcomes

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
    metrics = zero_shot_outcomes(images, labels, classes, chunk_size=64).metrics()
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
