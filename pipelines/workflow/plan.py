"""A pipeline's file to the settings of every stage, parsed before the first stage starts."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pipelines.config.errors import ConfigError, blaming, nearest
from pipelines.config.machine import MachineConfig
from pipelines.config.schema import SettingsOf
from pipelines.config.settings import Layers, build, check_still_named, read_yaml
from pipelines.corpus.corpus import CorpusConfig, ServeConfig, check_corpus
from pipelines.evaluation.evaluate import check_evaluation
from pipelines.ingest.settings import DownloadConfig
from pipelines.shards.docfreq import DocfreqConfig
from pipelines.training.checks import check_length, check_on_machine, named
from pipelines.training.init_weights import check_fits
from vlp.core.config import AtLeast, StrictConfig, check_name
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig
from vlp.shards.storage.folder import Folder

LATER = Path("made by an earlier stage")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(StrictConfig):
    """A pipeline: where its images come from, and which methods are compared on them."""

    name: str
    """Of the pipeline: its folder of results, and its experiment in MLflow."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own for all stages; a run may name more."""
    corpus: CorpusConfig | None = None
    """Images to try the pipeline on; without it, `download.url_list` names the real ones."""
    serve: ServeConfig = ServeConfig()
    """How the corpus is served while it is downloaded."""
    download: Annotated[dict[str, Any], SettingsOf(DownloadConfig)] = field(default_factory=dict)
    """Settings of the stage, as of `vlp download`."""
    docfreq: Annotated[dict[str, Any], SettingsOf(DocfreqConfig)] = field(default_factory=dict)
    """Settings of the stage, as of `vlp docfreq`."""
    common: Annotated[dict[str, Any], SettingsOf(RunConfig)] = field(default_factory=dict)
    """Settings that every run gets on top of its own file."""
    runs: list[dict[str, Any]]
    """One entry per method: `base`, a file of conf/run/, and settings on top of it and of `common`. With
    `init_from: {run: NAME, part: model}` it starts from the weights of a run that stands before it."""
    only: tuple[str, ...] = ()
    """Names of the runs to do; () for all."""
    seeds: Annotated[int, AtLeast(1)] = 1
    """Trainings of every run: by its seed, and by those that follow; the table's intervals then hold over
    other seeds too."""
    baseline: str | None = None
    """Name of the run that the table states the others' differences from, each with its interval."""
    evaluation: EvaluationConfig | None = None
    """What the runs are evaluated on, and how; without sets, on the held-out part of the corpus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)


@dataclass(frozen=True)
class Plan:
    """The settings of each stage, given what the stages before it made."""

    config: PipelineConfig
    given: Layers | None = None
    """The pipeline's settings as they were given, which say where a mistake was made."""

    @classmethod
    def read(cls, layers: Layers) -> "Plan":
        """The plan of a pipeline's settings."""
        return cls(build(PipelineConfig, layers), layers)

    def check(self) -> None:
        """Parse the settings of every stage, so that a mistake costs no work.

        Raises:
            ConfigError: the first mistake, in one line.
        """
        config = self.config
        if config.corpus is not None:
            check_corpus(config.corpus)
        elif "url_list" not in config.download:
            raise ConfigError("download.url_list is missing; name the file of URLs and captions")
        download = self.download(LATER)
        if config.corpus is None and download.is_here:
            download.list_files()
        self.docfreq(LATER).build()
        runs = self._all_runs(LATER, LATER)
        self._check_names([run.name for run in runs])
        self._check_sources([run.name for run in runs])
        self._check_seeds(runs)
        if config.evaluation is not None:
            check_evaluation(config.evaluation)

    def _check_names(self, names: list[str]) -> None:
        only, baseline = self.config.only, self.config.baseline
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"runs: name at least one run, and each only once; got {', '.join(names)}")
        for name in only:
            if name not in names:
                raise ConfigError(f"only: no run is named {name}{nearest(name, names)}")
        if baseline is not None and baseline not in (done := only or names):
            raise ConfigError(
                f"baseline: no run of those done is named {baseline}{nearest(baseline, done)}; "
                "name another, or set baseline=null"
            )

    def _check_sources(self, names: list[str]) -> None:
        only = self.config.only or names
        for place, (name, entry) in enumerate(zip(names, self.config.runs, strict=True)):
            source, before = _source_of(entry), names[:place]
            if source is not None and source not in before:
                raise ConfigError(
                    f"runs: init_from.run of {name}: no run before it is named {source}"
                    f"{nearest(source, before)}; name one that stands before it, or init_from.path"
                )
            if source is not None and name in only and source not in only:
                raise ConfigError(f"only: {name} starts from the weights of {source}; add {source}")

    def _check_seeds(self, runs: list[RunConfig]) -> None:
        names = {run.name for run in runs}
        for run in runs:
            for place in range(1, self.config.seeds):
                if (name := by_seed(run, place).name) in names:
                    raise ConfigError(
                        f"runs: {name} is what {run.name} is called by its next seed; rename it"
                    )

    def download(self, url_list: Path) -> DownloadConfig:
        """Settings of the download stage; a corpus brings its own URL list, served on this machine."""
        own = {"url_list": str(url_list), "allowed_networks": [self.config.serve.host]}
        given = own if self.config.corpus else {}
        return build(DownloadConfig, self._given("download").add(given, "pipeline"), prefix="download")

    def docfreq(self, shards: Path | Folder) -> DocfreqConfig:
        """Settings of the docfreq stage."""
        layers = self._given("docfreq").add({"shards": str(shards)}, "pipeline")
        return build(DocfreqConfig, layers, prefix="docfreq")

    def runs(self, shards: Path | Folder, tables: Path) -> list[RunConfig]:
        """Settings of the training runs, by the first seed and then by the others.

        Each is made of its file, then `common`, then the entry's own.

        Args:
            tables: folder of the docfreq stage.
        """
        runs, only = self._all_runs(shards, tables), self.config.only
        chosen = [run for run in runs if not only or run.name in only]
        return [by_seed(run, place) for place in range(self.config.seeds) for run in chosen]

    def sources(self) -> dict[str, str]:
        """Of each run that starts from the weights of another one: name -> name of that one, by each seed."""
        runs = {run.name: run for run in self._all_runs(LATER, LATER)}
        named = {name: _source_of(entry) for name, entry in zip(runs, self.config.runs, strict=True)}
        return {
            by_seed(runs[name], place).name: by_seed(runs[source], place).name
            for place in range(self.config.seeds)
            for name, source in named.items()
            if source is not None
        }

    def _all_runs(self, shards: Path | Folder, tables: Path) -> list[RunConfig]:
        return [self._run(entry, shards, tables) for entry in self.config.runs]

    def _run(self, entry: dict[str, Any], shards: Path | Folder, tables: Path) -> RunConfig:
        if not isinstance(entry.get("base"), str):
            raise ConfigError(f"runs: an entry needs its base, a file of conf/run/; got {entry}")
        base = Path(entry["base"])
        own = {key: value for key, value in entry.items() if key != "base"}
        if _source_of(entry) is not None:
            others = {key: value for key, value in entry["init_from"].items() if key != "run"}
            own["init_from"] = {"path": str(LATER)} | others
        layers = Layers().add({"plugins": self.config.plugins}, self.config.name)
        layers = layers.add(read_yaml(base), str(base))
        for common in self._given("common").layers:
            layers = layers.add(common.values, f"{common.source}: common, on {base}")
        layers = layers.add(own, f"{self._source('runs')}: runs, on {base}")
        run = build(RunConfig, layers.add({"data": {"shards": str(shards)}}, "pipeline"))
        check_still_named(layers)
        with blaming(f"tokenizer of {run.name}: "):
            used = run.tokenizer.build().identity
        if run.why_docfreq is None:
            return run
        for file, tokenizer in self.docfreq(LATER).build().items():
            if tokenizer.identity == used:
                return replace(run, data=replace(run.data, document_frequency=tables / file))
        raise ConfigError(
            f"docfreq.tokenizer is not the tokenizer of {run.name}, whose {run.why_docfreq}; set both "
            "alike, with one context_length, or add it to docfreq.more_tokenizers"
        )

    def _given(self, key: str) -> Layers:
        """The settings under a key, each with its source."""
        if self.given is not None:
            return self.given.below(key)
        return Layers().add(getattr(self.config, key), self.config.name)

    def _source(self, key: str) -> str:
        """Where a key was set."""
        return (self.given.blamed([[key]]) if self.given else None) or self.config.name


def _source_of(entry: dict[str, Any]) -> str | None:
    """Name of the run that an entry starts from the weights of; None where it is told by a path, or not."""
    init_from = entry.get("init_from")
    return init_from.get("run") if isinstance(init_from, dict) else None


def started_from(run: RunConfig, folder: Path) -> RunConfig:
    """A run that starts from the weights of another one, whose folder is known by now."""
    assert run.init_from is not None
    return replace(run, init_from=replace(run.init_from, path=folder))


def by_seed(run: RunConfig, place: int) -> RunConfig:
    """A run by its own seed, at place 0, or by one of those that follow."""
    seed = run.seed + place
    return replace(run, name=f"{run.name}-seed{seed}", seed=seed) if place else run


def check_before_data(plan: Plan, machine: MachineConfig) -> None:
    """What can be known of a pipeline's runs before there is data; looks at no GPU and at no file.

    Raises:
        ConfigError: the first mistake; names its run.
    """
    corpus = plan.config.corpus
    num_samples = None if corpus is None else corpus.num_train
    runs = {run.name: run for run in plan.runs(LATER, LATER)}
    sources = plan.sources()
    for run in runs.values():
        with named(run):
            check_on_machine(run, machine)
            check_length(run)
            if source := sources.get(run.name):
                check_fits(run, runs[source])
            if num_samples is not None and num_samples < run.training.batch_size:
                raise ConfigError(
                    f"training.batch_size is {run.training.batch_size} and the corpus has {num_samples} "
                    f"samples: fewer than one batch; set training.batch_size to {num_samples} at most"
                )
