"""Many seeds at once are the same seeds."""

import numpy as np

from vlp.core.seeds import mix_many, mix_seeds


def test_many_seeds_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2**63 - 1, (2, 200))
    for seed in (0, 7, -3, 2**40):
        expected = [mix_seeds(seed, int(a), int(b)) for a, b in zip(first, second, strict=True)]
        assert mix_many(seed, first, second).tolist() == expected
