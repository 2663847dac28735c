"""How much there is to do in a pipeline, a run or a sweep, before any of it is done."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from pipelines.config.errors import ConfigError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import to_dict
from pipelines.corpus.failures import FailureRates
from pipelines.ingest.settings import DownloadConfig
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig, slots_per_image
from vlp.tiny_world import TinyWorldConfig
from vlp.tiny_world.scene import CLASSES

STEPS_OF_REPORT = 10
"""Steps of every run that are timed at the end of a pipeline."""
MANUAL_SUCCESS = 0.7
LISTED = "the manual's share of a web list"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a plan cannot know by itself."""

    urls: int | None = None
    """Of a list that is not on this machine."""
    success: float | None = None
    """Share of them that still gives an image."""
    gigabits: float = 1.0
    """Per second, of the network that images come by."""
    price: float | None = None
    """Of a GPU for an hour, or of a CPU core where no GPU is used."""
    budget: float | None = None
    """What may be spent."""


@dataclass(frozen=True)
class Data:
    """What is downloaded."""

    urls: int
    success: float
    rests_on: str
    """Where both numbers come from."""
    download: DownloadConfig
    captions_per_image: int = 1
    generated: int | None = None
    """Images that are made here and served; None where they come from the web."""

    @property
    def images(self) -> int:
        """Images that are there in the end."""
        return round(self.urls * self.success)

    @property
    def shards(self) -> int:
        """Shards that they lie in."""
        return -(-self.urls // self.download.number_sample_per_shard)


class Evaluated(NamedTuple):
    """What a model is measured on."""

    images: int
    """Of all sets."""
    rests_on: str
    """Where the number comes from."""


@dataclass(frozen=True)
class Training:
    """A run, with how often it is trained and what it is measured on."""

    run: RunConfig
    evaluated: Evaluated
    times: int = 1
    at_once: int = 1
    measured_times: int = 1
    """How many of the finished models are measured."""

    @property
    def given_seconds(self) -> float | None:
        """How long it may take, where that is its length."""
        return self.run.training.length.seconds

    @property
    def steps(self) -> int:
        """Steps of one training; of a length of visible tokens the least that it pays for."""
        run, length = self.run, self.run.training.length
        if run.needs_visible_patches:
            full = replace(length, visible_patches=float(slots_per_image(run)))
            run = replace(run, training=replace(run.training, length=full))
        return run.num_steps

    @property
    def evaluations(self) -> int:
        """How often its model is measured while it trains."""
        every = self.run.evaluation.every_steps
        return self.steps // every if every and not self.run.training.length.needs_pace else 0


def data_of(plan: Plan, given: Given) -> Data:
    """What a pipeline downloads.

    Raises:
        ConfigError: the list is not on this machine, and its length is not given.
    """
    corpus, download = plan.config.corpus, plan.download(LATER)
    if corpus is not None:
        failing = _failing(plan.config.serve.failures)
        is_made = isinstance(corpus, TinyWorldConfig)
        captions = corpus.captions_per_image if is_made else 1
        made = corpus.num_train + evaluated_by(plan.config).images if is_made else 0
        return Data(corpus.num_train, 1 - failing, "corpus, serve.failures", download, captions, made)
    success = MANUAL_SUCCESS if given.success is None else given.success
    share = LISTED if given.success is None else "--success"
    if given.urls is not None:
        return Data(given.urls, success, f"--urls, {share}", download)
    if not download.is_here or not download.path.exists():
        raise ConfigError(
            f"download.url_list: {download.url_list} is not here to be counted; give the number of its URLs "
            "by --urls, such as --urls 1e9"
        )
    urls = sum(map(_count_rows, download.list_files()))
    return Data(urls, success, f"{download.url_list}, {share}", download)


def _count_rows(file: Path) -> int:
    """Rows of a Parquet file, or lines of another."""
    if file.suffix == ".parquet":
        return pq.read_metadata(file).num_rows
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def _failing(rates: FailureRates) -> float:
    """Share of the images that do not come."""
    others = ("timeout_seconds", "wrong_content_type")
    return sum(getattr(rates, one.name) for one in fields(rates) if one.name not in others)


def evaluated_by(config: PipelineConfig) -> Evaluated:
    """What the runs of a pipeline are measured on."""
    evaluation, corpus = config.evaluation or EvaluationConfig(), config.corpus
    if evaluation.sets or not isinstance(corpus, TinyWorldConfig):
        return evaluated(evaluation)
    per_class = corpus.num_labelled_per_class + corpus.num_test_per_class
    return Evaluated(corpus.num_heldout + len(CLASSES) * per_class, "corpus")


def evaluated(evaluation: EvaluationConfig) -> Evaluated:
    """All sets that are there; of what a suite has besides, the number that it is judged by."""
    there = sum(table.num_rows for data in evaluation.sets for table in data.tables)
    if evaluation.suite is None or not (missing := evaluation.missing):
        return Evaluated(there, "evaluation")
    judged = sum(evaluation.suite.sets[name].size for name in missing)
    return Evaluated(there + judged, "evaluation; of sets that are not here without those to learn from")


def part_of(run: RunConfig, machine: MachineConfig, stage: str = "train") -> str:
    """The name under which the rate of a run is kept: of all that decides it."""
    made_of = (run.image_encoder, run.mask, run.text_mask, run.objective, run.tokenizer)
    parts = [to_dict(one) for one in made_of]
    where = (machine.use_gpu, machine.cpus_per_worker, machine.worker_counts.most, machine.compile)
    decides = (parts, run.training.precision, to_dict(machine.memory), where)
    return f"{stage} {run.name} {fingerprint(*decides)[:8]}"
