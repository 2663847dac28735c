"""What a model is measured on, and how."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, Self

from vlp.core.config import AtLeast, StrictConfig, naming
from vlp.core.registry import EachByName
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import KINDS, EvaluationSet
from vlp.evaluation.suite import Suite
from vlp.objectives import ObjectiveConfig
from vlp.shards.storage.address import AnyFolder
from vlp.tokenizers import TokenizerConfig

Protocols = Annotated[Mapping[str, Evaluation[Any] | None], EachByName(EVALUATIONS)]


class Measurement(NamedTuple):
    """One protocol on one set."""

    data: EvaluationSet
    protocol: Evaluation[Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(StrictConfig):
    """What a model is measured on, and how; what is not given is not measured."""

    retrieval: Mapping[str, AnyFolder] = field(default_factory=dict)
    """Set's name, the first part of its metrics -> Parquet file with columns `image` and `captions`, a folder
    of such files, or of shards; wherever a set is a file, it may be any of these, in an object store too."""
    classification: Mapping[str, AnyFolder] = field(default_factory=dict)
    """Set's name -> folder of train.parquet and test.parquet (`image`, `label`), and meta.json (`classes`,
    `templates`)."""
    choice: Mapping[str, AnyFolder] = field(default_factory=dict)
    """Set's name -> folder of images.parquet (`image`, `filename`) and choices.json, in SugarCrepe's form."""
    captioning: Mapping[str, AnyFolder] = field(default_factory=dict)
    """Set's name -> folder of train.parquet and test.parquet (`image`, `captions`)."""
    judgement: Mapping[str, AnyFolder] = field(default_factory=dict)
    """Set's name -> folder of images.parquet (`image`, `filename`) and judgements.json (`filename`,
    `caption`, `judgements`)."""
    suite: Suite | None = None
    """Sets in one folder, and what each of them has to be, as in the files of conf/evaluation/."""
    protocols: Protocols = field(default_factory=EachByName(EVALUATIONS).defaults)
    """Protocol -> its settings; null leaves it out. Each measures on the sets that it reads, models that have
    what it needs."""
    every_steps: Annotated[int, AtLeast(1)] | None = None
    """Also measure during training, this often; None measures only the finished model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [*self.sets, *(self.suite.places.values() if self.suite else ())]
        for data in named:
            if not re.fullmatch(r"\w[\w-]*", data.name):
                raise ValueError(
                    f"{data.kind} must be by names of letters, digits, _ and -, got {data.name!r}"
                )

    @property
    def sets(self) -> list[EvaluationSet]:
        """Everything that models are measured on: of a suite, what is there."""
        given = [
            kind(name, place) for key, kind in KINDS.items() for name, place in getattr(self, key).items()
        ]
        names, places = {data.name for data in given}, self.suite.places if self.suite else {}
        return given + [data for name, data in places.items() if name not in names and data.is_there]

    @property
    def missing(self) -> list[str]:
        """Names of the sets of the suite that are nowhere."""
        return self.suite.missing(self.sets) if self.suite else []

    def check(self) -> None:
        """Raise a ValueError, of one line that begins with the key of a set, where one is not as it has to
        be."""
        sets = self.sets
        for data in sets:
            with naming(f"{data.key}: "):
                data.check()
        if self.suite:
            with naming("suite."):
                self.suite.check(sets)
                for data, protocol in self._all():
                    if data.name in self.suite.sets:
                        with naming(f"sets.{data.name}: "):
                            self.suite.sets[data.name].check_chance(protocol.chance(data))

    @property
    def given_protocols(self) -> dict[str, Evaluation[Any]]:
        """The protocols that are not left out."""
        return {name: protocol for name, protocol in self.protocols.items() if protocol is not None}

    def measurements(
        self, objective: ObjectiveConfig, tokenizer: TokenizerConfig | None = None
    ) -> list[Measurement]:
        """What is measured of the models of an objective.

        Args:
            tokenizer: theirs; None where its classes do not matter.
        """
        return [one for one in self._all() if _refusal(one, objective, tokenizer) is None]

    def refusals(self, objective: ObjectiveConfig, tokenizer: TokenizerConfig | None = None) -> list[str]:
        """Why the models of an objective are not measured by some of the protocols: a line for each."""
        lines = (_refusal(one, objective, tokenizer) for one in self._all())
        return list(dict.fromkeys(line for line in lines if line is not None))

    def expected_of(self, objective: ObjectiveConfig) -> Self:
        """Without protocols of classifiers, where an objective has none: nobody misses these."""
        needing = (name for name, one in self.given_protocols.items() if one.needs_classes)
        missed = {} if objective.tells_classes else dict.fromkeys(needing)
        return replace(self, protocols={**self.protocols, **missed})

    def main_metric(self, objective: ObjectiveConfig, tokenizer: TokenizerConfig | None = None) -> str | None:
        """The metric by which checkpoints are compared: of the first set and protocol that have one."""
        measured = self.measurements(objective, tokenizer)
        names = ((one.data.name, one.protocol.main_metric) for one in measured)
        return next((f"{data}/{metric}" for data, metric in names if metric is not None), None)

    def chance(self) -> dict[str, float]:
        """What guessing gives, by `set/metric`; of the metrics for which it is known."""
        return {
            f"{one.data.name}/{metric}": value
            for one in self._all()
            for metric, value in one.protocol.chance(one.data).items()
        }

    def _all(self) -> Iterator[Measurement]:
        for data in self.sets:
            for protocol in self.given_protocols.values():
                if data.kind == protocol.reads.kind:
                    yield Measurement(data, protocol)


def _refusal(one: Measurement, objective: ObjectiveConfig, tokenizer: TokenizerConfig | None) -> str | None:
    try:
        one.protocol.check(objective)
        one.protocol.check_set(one.data)
        if tokenizer is not None:
            one.protocol.check_classes(one.data, tokenizer)
    except ValueError as error:
        return str(error)
    return None
