"""What a sweep draws settings from."""

import random
from typing import Any

from pipelines.config.errors import ConfigError, nearest


def search_space(space: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """{"mask.anchor_ratio": {"uniform": [0.01, 0.2]}} -> {"mask.anchor_ratio": tune.uniform(0.01, 0.2)}."""
    from ray import tune

    samplers = {}
    for key, choice in space.items():
        for name, arguments in choice.items():
            sampler = getattr(tune, name, None)
            if not callable(sampler):
                valid = ["choice", "uniform", "loguniform", "quniform", "randint", "grid_search"]
                raise ConfigError(f"space.{key}: {name!r} is not a sampler of ray.tune{nearest(name, valid)}")
            takes_one = name in ("choice", "grid_search")
            samplers[key] = sampler(arguments) if takes_one else sampler(*arguments)
    return samplers


def draw(sampler: Any) -> Any:
    """One value: of a sampler of ray.tune, or of a grid."""
    return random.choice(sampler["grid_search"]) if isinstance(sampler, dict) else sampler.sample()


def setting_text(value: Any) -> str:
    """A value as in an override, numbers rounded."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
