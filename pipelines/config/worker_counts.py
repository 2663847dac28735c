"""How many workers train a run: always as many, or as many as there is room for."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerCounts:
    """Every number of workers that a run may have while it goes on."""

    least: int
    """0 stands for the one of this process, without Ray."""
    most: int

    @classmethod
    def of(cls, setting: int | tuple[int, ...]) -> "WorkerCounts":
        """The counts of `machine.num_workers`.

        Raises:
            ValueError: it is negative, or no range.
        """
        if isinstance(setting, int):
            if setting < 0:
                raise ValueError(f"num_workers must not be negative, got {setting}")
            return cls(setting, setting)
        if len(setting) != 2 or not 1 <= setting[0] <= setting[1]:
            raise ValueError(
                "num_workers must be one number, or the least, 1 or more, and the most of them, such as "
                f"[2, 8]; got {list(setting)}"
            )
        return cls(*setting)

    @property
    def is_elastic(self) -> bool:
        """Whether the number may change."""
        return self.least < self.most

    def __iter__(self) -> Iterator[int]:
        return iter(range(max(1, self.least), max(1, self.most) + 1))

    def __str__(self) -> str:
        """As the setting is written."""
        return f"[{self.least}, {self.most}]" if self.is_elastic else str(self.least)
