"""Which methods no other beats."""

from itertools import product

import torch

from vlp.pictures.pareto import Reached, pareto_charts, pareto_front


def test_no_method_of_the_front_is_beaten_and_all_others_are() -> None:
    numbers = torch.randint(0, 6, (12, 2), generator=torch.Generator().manual_seed(0)).tolist()
    points = {f"m{i}": Reached(cost, value, value, value) for i, (cost, value) in enumerate(numbers)}
    front = pareto_front(points)

    def beats(one: Reached, other: Reached) -> bool:
        return (
            one.cost <= other.cost
            and one.value >= other.value
            and (one.cost, one.value) != (other.cost, other.value)
        )

    beaten = {b for a, b in product(points, points) if beats(points[a], points[b])}
    assert not beaten & set(front)
    assert {points[name] for name in front} == {points[name] for name in points.keys() - beaten}


def test_every_number_has_a_panel() -> None:
    points = {"clip": Reached(1, 0.4, 0.35, 0.45), "flip": Reached(0.6, 0.38, 0.3, 0.42)}
    one, four = (
        pareto_charts(dict.fromkeys(names, points), ["clip", "flip"], cost="time") for names in ("a", "abcde")
    )
    assert four.height > 1.5 * one.height
