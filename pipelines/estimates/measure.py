"""The parts of a pipeline, done for some seconds each on a few generated pairs, to know how fast they are."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import torch

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.compute.cluster import connect, connect_for_training
from pipelines.config.machine import MachineConfig
from pipelines.corpus.corpus import URL_LIST, ServeConfig, make_corpus, serve_corpus, with_sets
from pipelines.estimates.files import Planned
from pipelines.estimates.rates import STORED, Amount, Rate, Rates, measured_here
from pipelines.estimates.work import STEPS_OF_REPORT, evaluated, evaluated_by, part_of
from pipelines.evaluation.evaluate import EvaluateConfig, evaluate, measure_model
from pipelines.ingest.download import download
from pipelines.shards.docfreq import docfreq
from pipelines.tracking.journal import Journal
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from pipelines.training.step_times import StepTimesConfig, step_times
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import rank_batches
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig, flops_of_step
from vlp.shards.published import files_below
from vlp.shards.storage.address import open_folder
from vlp.tiny_world import TinyWorldConfig
from vlp.training.length import LengthConfig
from vlp.training.lr_schedule import Cosine

SMALL, LARGE = 128, 1024
"""Pairs of two downloads: their difference is without what each takes to begin."""
SHARD = 64
STEP_SECONDS = 2.0
"""A step is measured on as many pairs as take about so long."""
SLOWEST_FLOPS = 2e10
"""Per second, of a worker on a CPU."""
WARM_UP_STEPS, FEWEST_STEPS, MOST_STEPS = 2, 6, 60
RUN_SECONDS = 20.0
"""Of the steps that are timed, about."""
LOADER_SECONDS = 3.0
GENERATED_SIZE = 512
"""Pixels a side of the largest generated images."""
CPU = torch.device("cpu")
OF_DOWNLOAD = {"image_size", "resize_mode", "resize_only_if_bigger", "encode_quality", "thread_count"}
OF_DOWNLOAD |= {"timeout", "retries"}
"""Settings of a download that decide how fast it is, and nothing about the list."""


@dataclass(frozen=True)
class Bench:
    """Where parts are measured."""

    machine: MachineConfig
    folder: Path
    """Empty at first; all that is made goes there."""
    rests_on: str

    def recorded(self, name: str) -> Journal:
        """The record of a part."""
        return Journal(self.folder / "journals" / name)

    def journal(self, name: str) -> Journal:
        """The record of a part, begun; it is tracked nowhere."""
        journal = self.recorded(name)
        journal.begin(name=name, tags={})
        return journal

    @property
    def data_workers(self) -> int:
        """Processes that download and count."""
        return self.machine.data_workers or os.cpu_count() or 1

    def rate(self, amount: float, seconds: float, *, start: float = 0.0) -> Rate:
        """What one worker has done in some seconds."""
        return Rate(amount / max(seconds, 1e-6), max(0.0, start), self.rests_on)


def measure(planned: Planned, rates: Rates, machine: MachineConfig, folder: Path) -> Rates:
    """Do every part of the work for some seconds, as the machine's settings have it.

    Args:
        folder: an empty one that all nodes see.
    """
    bench = Bench(machine, folder, measured_here(rates.hardware))
    connect_for_training(machine)
    age = _age_of_process()
    found = {"start": Rate(1, age, bench.rests_on)}
    with _served(planned.pipeline, bench) as (plan, corpus, seconds):
        found["corpus"] = seconds
        shards, found["download"] = _download(plan, bench)
    tables, found["docfreq"] = _docfreq(plan, shards, bench)
    evaluation = with_sets(EvaluationConfig(), corpus, folder / "corpus")
    runs = [_short(_on(shards, tables, one.run), machine) for one in planned.trainings]
    found["loader"] = _loader(runs[0], bench)
    trained = {run.name: folder / "pretrain" / run.name for run in runs}
    for run in runs:
        found |= _training(run, trained[run.name], bench)
    start = time.monotonic()
    connect(machine)  # where training needs no Ray, the first evaluation starts it
    found["start"] = replace(found["start"], start_seconds=age + time.monotonic() - start)
    for run in runs:
        found |= _evaluation(run, trained[run.name], evaluation, bench)
    found["report"] = _report(trained, bench)
    per_second = [found[part_of(run, machine)].per_second * flops_of_step(run, 1) for run in runs]
    starts = [found[part_of(run, machine)].start_seconds for run in runs]
    found["flops"] = Rate(median(per_second), median(starts), bench.rests_on)
    return rates.with_measured(found, _amounts(shards, runs, bench))


@contextmanager
def _served(config: PipelineConfig, bench: Bench) -> Iterator[tuple[Plan, TinyWorldConfig, Rate]]:
    """A small pipeline of the same settings on a generated corpus, which is served meanwhile."""
    size = config.corpus.image_size if isinstance(config.corpus, TinyWorldConfig) else GENERATED_SIZE
    corpus = TinyWorldConfig(num_train=LARGE, image_size=size)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = replace(config.serve if config.corpus else ServeConfig(), host="127.0.0.1", port=port)
    kept = {key: value for key, value in config.download.items() if key in OF_DOWNLOAD}
    small = replace(
        config,
        corpus=corpus,
        serve=serve,
        download={**kept, "number_sample_per_shard": SHARD},
        evaluation=None,
    )
    start = time.monotonic()
    make_corpus(corpus, serve, bench.folder / "corpus")
    rate = bench.rate(LARGE + evaluated_by(small).images, time.monotonic() - start)
    with serve_corpus(corpus, serve, bench.folder / "corpus"):
        yield Plan(small), corpus, rate


def _download(plan: Plan, bench: Bench) -> tuple[Path, Rate]:
    lines = (bench.folder / "corpus" / URL_LIST).read_text().splitlines(keepends=True)
    seconds = {}
    for number in (SMALL, LARGE):
        urls = bench.folder / f"urls-{number}.jsonl"
        urls.write_text("".join(lines[:number]))
        start, output = time.monotonic(), bench.folder / f"shards-{number}"
        name = f"download-{number}"
        download(plan.download(urls), output, machine=bench.machine, journal=bench.journal(name))
        seconds[number] = time.monotonic() - start
    each = max(1e-6, seconds[LARGE] - seconds[SMALL]) / (LARGE - SMALL)
    workers = min(bench.data_workers, LARGE // SHARD)
    begin = seconds[SMALL] - SMALL * each
    return bench.folder / f"shards-{LARGE}", bench.rate(1, each * workers, start=begin)


def _docfreq(plan: Plan, shards: Path, bench: Bench) -> tuple[Path, Rate]:
    """The counting of one tokenizer; a small set is counted before a worker has started."""
    config = plan.docfreq(shards)
    rows = (bench.folder / "corpus" / "train" / "captions.jsonl").read_text().splitlines()
    captions = [caption for row in rows for caption in json.loads(row)["captions"]]
    tokenizer = config.tokenizer.build()
    tokenizer.encode(captions)
    start = time.perf_counter()
    tokenizer.encode(captions)
    each = (time.perf_counter() - start) / len(captions)
    start, tables = time.monotonic(), bench.folder / "docfreq"
    docfreq(config, tables, machine=bench.machine, journal=bench.journal("docfreq"))
    seconds = time.monotonic() - start
    return tables, bench.rate(1, each, start=seconds - len(captions) * each / bench.data_workers)


def _on(shards: Path, tables: Path, run: RunConfig) -> RunConfig:
    """The run, on what was made here."""
    table = run.data.document_frequency
    if table is not None and table.parent == LATER:
        table = tables / table.name
    data = replace(
        run.data, shards=open_folder(shards), document_frequency=table, mix=(), where=(), selections=()
    )
    return replace(run, data=data)


def _short(run: RunConfig, machine: MachineConfig) -> RunConfig:
    """A run of a few steps, on as many pairs as a worker has in some seconds."""
    workers = max(1, machine.worker_counts.most)
    flops = SLOWEST_FLOPS if not machine.use_gpu else 1000 * SLOWEST_FLOPS
    each = flops_of_step(run, 1) / flops
    batch = min(run.training.batch_size, LARGE // 2, workers * max(1, int(STEP_SECONDS / each)))
    batch = max(workers, batch - batch % workers)
    steps = min(MOST_STEPS, max(FEWEST_STEPS, int(RUN_SECONDS * workers / (each * batch))))
    length = LengthConfig(steps=WARM_UP_STEPS + steps)
    training = replace(run.training, length=length, batch_size=batch)
    schedule = Cosine(warmup_steps=0)
    return replace(run, training=training, lr_schedule=schedule, tuning=None, evaluation=EvaluationConfig())


def _loader(run: RunConfig, bench: Bench) -> Rate:
    """Images that one core decodes and turns into batches."""
    shards = open_shards(run.data, captioned=run.objective.reads_captions)
    pairs = TrainingPairs(shards, run.data, image_size=run.image_encoder.image_size, seed=run.seed)
    order = data_order(shards, run.data, seed=run.seed, batch_size=run.training.batch_size)
    draws = rank_batches(order, steps=range(10**6), rank=0, world_size=1)
    num_images, start = 0, 0.0
    for batch in BatchLoader(pairs, draws, run.tokenizer.build(), num_workers=0, device=CPU):
        if start:
            num_images += len(batch.images)
        else:
            start = time.perf_counter()  # after what the first batch prepares
        if num_images and time.perf_counter() - start > LOADER_SECONDS:
            break
    return bench.rate(num_images, time.perf_counter() - start)


def _training(run: RunConfig, output: Path, bench: Bench) -> dict[str, Rate]:
    """Pairs per second of a worker, in the steps of a short run; what else the run takes is its start."""
    machine = replace(bench.machine, log_every_steps=1, validation_workers=0)
    journal = bench.journal(f"pretrain-{run.name}")
    start = time.monotonic()
    pretrain(resolve(run, machine), output, machine=machine, journal=journal)
    seconds = time.monotonic() - start
    times = [metrics["worker/batch_time"] for metrics in _metrics(journal)]
    workers, each = max(1, machine.worker_counts.most), mean(times[WARM_UP_STEPS:])
    rate = bench.rate(run.training.batch_size / workers, each, start=seconds - len(times) * each)
    return {part_of(run, bench.machine): rate}


def _evaluation(
    run: RunConfig, checkpoint: Path, evaluation: EvaluationConfig, bench: Bench
) -> dict[str, Rate]:
    """Images per second that a model is measured on; what else the stage takes is its start."""
    name = f"evaluate-{run.name}"
    config = EvaluateConfig(checkpoint=checkpoint, evaluation=evaluation)
    start = time.monotonic()
    machine = replace(
        bench.machine, storage=open_folder(bench.folder), work=None
    )  # where no features are yet
    evaluate(config, bench.folder / name, machine=machine, journal=bench.journal(name))
    seconds = time.monotonic() - start
    device = torch.device("cuda" if bench.machine.use_gpu else "cpu")
    objective, trained = load_model(find_checkpoint(checkpoint), device)
    start = time.monotonic()
    measure_model(objective, trained, evaluation)
    work = time.monotonic() - start
    rate = bench.rate(evaluated(evaluation).images, work, start=seconds - work)
    return {part_of(run, bench.machine, "evaluate"): rate}


def _report(trained: Mapping[str, Path], bench: Bench) -> Rate:
    """What comparing the runs takes beside their steps."""
    start = time.monotonic()
    config, output = StepTimesConfig(runs=trained), bench.folder / "step_times"
    output.mkdir()
    done = step_times(config, output, machine=bench.machine, journal=bench.journal("step_times"))
    seconds = time.monotonic() - start - STEPS_OF_REPORT * sum(done.seconds.values())
    return Rate(1, max(0.0, seconds), bench.rests_on)


def _amounts(shards: Path, runs: Sequence[RunConfig], bench: Bench) -> dict[str, Amount]:
    """Bytes of an image in shards, and the patches that masks of unequal ones have shown in the mean."""
    stored = sum(file.stat().st_size for file in files_below(shards)) / LARGE
    found = {STORED: Amount(stored, bench.rests_on)}
    for run in (run for run in runs if run.objective.drops_patches and not run.mask.is_exact):
        hidden = [metrics["view/mask_ratio"] for metrics in _metrics(bench.recorded(f"pretrain-{run.name}"))]
        visible = run.image_encoder.num_patches * (1 - mean(hidden))
        found[part_of(run, bench.machine, "visible")] = Amount(visible, bench.rests_on)
    return found


def _metrics(journal: Journal) -> list[dict[str, float]]:
    """What was recorded of each step."""
    found = [record.fields["metrics"] for record in journal.read() if record.kind == "metrics"]
    return [metrics for metrics in found if "worker/batch_time" in metrics]


def _age_of_process() -> float:
    """Seconds since this process began: imports, settings, and what Ray takes to start."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def measured(planned: Planned, rates: Rates, machine: MachineConfig) -> Rates:
    """As `measure`, in a folder of the machine's storage that is deleted in the end."""
    storage = machine.work_folder.absolute()
    storage.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=storage, prefix=".measured-") as folder:
        return measure(planned, rates, machine, Path(folder))
