"""A choice is right where the match is strictly more similar than every other candidate."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.choice import Choice, choice_outcomes
from vlp.metrics.outcomes import named_metrics


def embeddings(count: int, *, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def scores(images: Tensor, texts: Tensor, choices: list[Choice]) -> dict[str, float]:
    return named_metrics(choice_outcomes(images, texts, choices))


def test_the_parts_and_their_averages_are_those_of_a_loop() -> None:
    images, texts = embeddings(10, seed=0), embeddings(40, seed=1)
    parts = ["add_obj", "swap_obj", "swap_att", "add_obj"]
    choices = [Choice([i % 10], [i, (i + 1) % 40], parts[i % 4]) for i in range(40)]
    found = scores(images, texts, choices)
    similarity = images @ texts.T
    right = [bool(similarity[i % 10, i] > similarity[i % 10, (i + 1) % 40]) for i in range(40)]

    def share(*names: str) -> float:
        of = [one for one, choice in zip(right, choices, strict=True) if choice.part in names]
        return sum(of) / len(of)

    assert found["/acc1"] == pytest.approx(sum(right) / 40)
    assert found["add_obj/acc1"] == pytest.approx(share("add_obj"))
    assert found["obj/acc1"] == pytest.approx(share("add_obj", "swap_obj"))
    assert found["obj/mean_part_acc1"] == pytest.approx((share("add_obj") + share("swap_obj")) / 2)
    assert found["att/acc1"] == found["swap_att/acc1"]
    assert "att/mean_part_acc1" not in found
    of_parts = [share(name) for name in ("add_obj", "swap_obj", "swap_att")]
    assert found["/mean_part_acc1"] == pytest.approx(sum(of_parts) / 3)
    assert 0.2 < found["/acc1"] < 0.8


def test_two_images_and_two_captions_are_scored_as_winoground() -> None:
    images, texts = embeddings(60, seed=2), embeddings(60, seed=3)
    choices = [Choice([i, i + 1], [i, i + 1], "") for i in range(0, 60, 2)]
    text = image = group = 0
    for choice in choices:
        (a, b), (x, y) = images[list(choice.images)], texts[list(choice.captions)]
        text_right = bool(a @ x > a @ y and b @ y > b @ x)
        image_right = bool(a @ x > b @ x and b @ y > a @ y)
        text, image, group = text + text_right, image + image_right, group + (text_right and image_right)
    assert 0 < group < min(text, image)
    expected = {"/text_score": text / 30, "/image_score": image / 30, "/group_score": group / 30}
    assert scores(images, texts, choices) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.5, float("nan")])
@pytest.mark.parametrize("num_images", [1, 2])
def test_a_collapsed_model_and_one_without_numbers_get_nothing_right(value: float, num_images: int) -> None:
    constant = torch.full((4, 4), value)
    choices = [Choice(list(range(num_images)), [0, 1, 2], "")]
    assert set(scores(constant, constant, choices).values()) == {0.0}


def test_paraphrases_are_scored_as_sugarcrepe_pp() -> None:
    """ITT: the image prefers both; TOT: both prefer each other to the wrong one, of texts alone."""
    images, texts = embeddings(60, seed=4), embeddings(180, seed=5)
    choices = [Choice([i], [3 * i, 3 * i + 2], f"p{i % 2}", [3 * i + 1]) for i in range(60)]
    itt, tot = [], []
    for i in range(60):
        one, two, wrong = texts[3 * i : 3 * i + 3]
        itt.append(bool(images[i] @ one > images[i] @ wrong and images[i] @ two > images[i] @ wrong))
        tot.append(bool(one @ two > one @ wrong and one @ two > two @ wrong))
    found = scores(images, texts, choices)
    assert found["/acc1"] == pytest.approx(sum(itt) / 60)
    assert found["/text_only_acc1"] == pytest.approx(sum(tot) / 60)
    of_parts = [sum(tot[part::2]) / 30 for part in (0, 1)]
    assert found["/mean_part_text_only_acc1"] == pytest.approx(sum(of_parts) / 2)
    assert 0.2 < found["/acc1"] < 0.5
    constant = torch.full((180, 4), 0.5)
    assert set(scores(constant[:60], constant, choices).values()) == {0.0}
