"""Few-shot least squares against big_vision's numbers and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Generator, Tensor

from vlp.metrics.few_shot import draw_shots, few_shot_outcomes, fit_least_squares, ridge
from vlp.metrics.rows import LabelledRows


def waves(*shape: int) -> Tensor:
    return torch.sin(0.61 * torch.arange(math.prod(shape), dtype=torch.float64)).view(shape)


def test_weights_with_more_images_than_features_are_those_of_big_vision() -> None:
    labels = torch.arange(20) % 4
    features = waves(20, 6) + F.one_hot(labels, 4)[:, [0, 1, 2, 3, 0, 1]]
    model = fit_least_squares(LabelledRows(features, labels), num_classes=4)
    golden = [0.01020624, -0.0051136, -0.00097916, -0.00411349]
    assert model.weights.shape == (7, 4)
    assert model.weights[0].tolist() == pytest.approx(golden, abs=1e-8)
    assert model.weights[6].tolist() == pytest.approx([-0.00497453] * 4, abs=1e-8)
    assert (model(features).argmax(dim=1) == labels).double().mean() == 0.9


def test_weights_with_fewer_images_than_features_are_those_of_big_vision() -> None:
    model = fit_least_squares(LabelledRows(waves(5, 9), torch.arange(5) % 4), num_classes=4)
    golden = [0.00454263, -0.00110852, -0.00243645, -0.00099767]
    assert model.weights[0].tolist() == pytest.approx(golden, abs=1e-8)


@pytest.mark.parametrize(("images", "features"), [(30, 8), (8, 30), (12, 12), (1, 5)])
def test_ridge_in_parts_has_the_solution_of_scikit_learn(images: int, features: int) -> None:
    generator = Generator().manual_seed(0)
    x = torch.randn(images, features, generator=generator, dtype=torch.float64)
    y = torch.randn(images, 3, generator=generator, dtype=torch.float64)
    expected = Ridge(alpha=7.0, fit_intercept=False, solver="svd").fit(x.numpy(), y.numpy()).coef_.T
    for rows in (images, 5):
        found = ridge(zip(x.split(rows), y.split(rows), strict=True), l2=7.0)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def labelled(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Overlapping groups, of which the features have very different scales."""
    generator = Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (num_images,), generator=generator)
    centres = torch.randn(5, 24, generator=Generator().manual_seed(99))
    features = centres[labels] + 1.5 * torch.randn(num_images, 24, generator=generator)
    return features * torch.logspace(-3, 3, 24) + 5, labels


@pytest.mark.parametrize("shots", [1, 10])
def test_accuracies_are_those_of_scikit_learn(shots: int) -> None:
    (train, train_labels), (test, test_labels) = labelled(400, 0), labelled(500, 1)
    accuracies = []
    for seed in (0, 1, 2):
        chosen = draw_shots(train_labels, shots, seed=seed)
        x = train[chosen].double().numpy()
        mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
        x, unseen = (
            np.column_stack([(part - mean) / std, np.full(len(part), 100.0)])
            for part in (x, test.double().numpy())
        )
        y = 2 * np.eye(5)[train_labels[chosen].numpy()] - 1
        oracle = Ridge(alpha=1024, fit_intercept=False, solver="svd").fit(x, y)
        accuracies.append(np.mean(oracle.predict(unseen).argmax(axis=1) == test_labels.numpy()))
    found = few_shot_outcomes(train, train_labels, test, test_labels, shots=shots, num_classes=5).metrics()
    assert found == pytest.approx(
        {
            "acc1": np.mean(accuracies),
            "acc1_std": np.std(accuracies),
        }
    )
    assert 0.3 < found["acc1"] < 0.95
    assert found["acc1_std"] > 0


def test_each_class_gives_as_many_images_or_all_that_it_has() -> None:
    labels = torch.tensor([2] * 3 + [0] * 50 + [1] * 20)[torch.randperm(73)]
    draws = [draw_shots(labels, 10, seed=seed) for seed in range(300)]
    for chosen in draws:
        assert len(set(chosen.tolist())) == 23
        assert labels[chosen].bincount().tolist() == [10, 10, 3]
    times = torch.cat(draws).bincount(minlength=73)[labels == 0]
    assert (times - 60).abs().max() < 5 * (300 * 0.2 * 0.8) ** 0.5


def test_equal_seeds_draw_equal_images() -> None:
    labels = torch.arange(100) % 7
    first, again, other = (draw_shots(labels, 5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_features_that_never_vary_do_no_harm() -> None:
    features = F.pad(F.one_hot(torch.arange(12) % 3).float(), (0, 2), value=3.0)
    labels = torch.arange(12) % 3
    metrics = few_shot_outcomes(features, labels, features, labels, shots=4, num_classes=3).metrics()
    assert metrics == {"acc1": 1.0, "acc1_std": 0.0}


def test_features_that_are_not_finite_give_no_class() -> None:
    train, labels = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    nothing = torch.full((40, 4), float("nan"))
    assert not few_shot_outcomes(nothing, labels, nothing, labels, num_classes=2).is_right.any()
    assert not few_shot_outcomes(train, labels, nothing, labels, num_classes=2).is_right.any()
