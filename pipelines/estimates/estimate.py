"""What a pipeline, a run or a sweep will take: each number with what it rests on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pipelines.config.machine import MachineConfig
from pipelines.estimates.rates import STORED, Amount, Rate, Rates
from pipelines.estimates.work import STEPS_OF_REPORT, Data, Given, Training, part_of
from pipelines.training.step_times import MAX_SECONDS
from vlp.core.messages import size_text
from vlp.run import flops_of_step, memory_of_step, visible_tokens
from vlp.training.flops import image_flops
from vlp.training.memory import COPIES

MANUAL_SIZES = "by the manual's sizes of images"
IMAGE_BYTES, OTHER_BYTES, INDEX_BYTES, ORIGINAL_BYTES = 20_000, 3_000, 275, 100_000
"""Of an image of 256 pixels, of what is stored beside it, of its row in an index, and of the original."""
FILES_PER_SHARD, LISTED_BYTES = 4, 500
WORKER_BYTES, BYTES_PER_PIXEL, LARGE_IMAGE = 400 * 2**20, 36, 10**6
VERIFY_SECONDS = 1e-4
HOUR = 3600.0


class Line(NamedTuple):
    """One number of a plan."""

    what: str
    value: str
    rests_on: str


@dataclass
class Estimate:
    """All lines of a plan, with what they add up to."""

    lines: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    core_hours: float = 0.0
    gpu_hours: float = 0.0

    def add(self, what: str, value: str, rests_on: str) -> None:
        """One more line."""
        self.lines.append(Line(what, value, rests_on))

    def spend(self, what: str, seconds: float, rests_on: str, *, cores: float, gpus: int = 0) -> None:
        """A stage: its time, on so many cores and GPUs."""
        hours = seconds / HOUR
        self.seconds += seconds
        self.core_hours += hours * cores
        self.gpu_hours += hours * gpus
        on = f"{gpus} GPUs" if gpus else f"{cores:g} cores"
        self.add(what, f"{duration(seconds)} on {on}", rests_on)


def estimate(
    data: Data | None, trainings: Sequence[Training], rates: Rates, machine: MachineConfig, given: Given
) -> Estimate:
    """What it will take to get the data, to train and to measure.

    Args:
        data: None where it is there already.
    """
    plan = Estimate()
    start = rates.of("start")
    plan.spend("start", start.start_seconds, start.rests_on, cores=1)
    if data is not None:
        _add_data(plan, data, rates, machine, given)
    for training in trainings:
        _add_training(plan, training, rates, machine)
    if data is not None and trainings:
        _add_report(plan, trainings, rates, machine)
    _add_totals(plan, trainings, machine, given)
    return plan


def _add_data(plan: Estimate, data: Data, rates: Rates, machine: MachineConfig, given: Given) -> None:
    config, images = data.download, data.images
    plan.add("images", f"{images:,} of {data.urls:,} URLs", data.rests_on)
    per_shard = f"{FILES_PER_SHARD} per {config.number_sample_per_shard:,} URLs"
    plan.add("files", f"{FILES_PER_SHARD * data.shards:,}", f"{per_shard} (download.number_sample_per_shard)")
    each = _bytes_per_image(data, rates)
    disk = images * each.value + data.urls * INDEX_BYTES
    plan.add("disk", size_text(disk), f"{each.value / 1000:.1f} kB per image in shards, {each.rests_on}")
    listed = (
        f"{size_text(config.max_grouping_bytes)} of memory, {size_text(data.urls * LISTED_BYTES)} in TMPDIR"
    )
    plan.add("list, grouped by URL", listed, "download.max_grouping_bytes; three times the list as text")
    if data.generated is not None:
        rate = rates.of("corpus")
        plan.spend("corpus", rate.seconds(data.generated), rate.rests_on, cores=1)
    workers = machine.data_workers or os.cpu_count() or 1
    rate, busy = rates.of("download"), min(workers, data.shards)
    by_cores = rate.seconds(data.urls, workers=busy)
    by_network = 0.0
    if data.generated is None:
        by_network = images * ORIGINAL_BYTES * 8 / (given.gigabits * 1e9)
        plan.add(
            "network", duration(by_network), f"100 kB per original at {given.gigabits:g} Gbit/s (--gigabits)"
        )
    plan.spend("download", max(by_cores, by_network), rate.rests_on, cores=busy)
    memory = config.max_buffer_bytes + WORKER_BYTES + BYTES_PER_PIXEL * LARGE_IMAGE
    plan.add(
        "download worker", f"{size_text(memory)} of memory", "download.max_buffer_bytes, and 1 MP images"
    )
    rate = rates.of("docfreq")
    seconds = rate.seconds(images * data.captions_per_image, workers=busy)
    plan.spend("docfreq", seconds, rate.rests_on, cores=busy)
    verified = images * VERIFY_SECONDS / busy
    plan.add("vlp data verify", duration(verified), "0.1 ms per image, as the manual says; not in the sum")


def _bytes_per_image(data: Data, rates: Rates) -> Amount:
    """What an image takes in shards: as it was counted of generated ones, or by the manual's sizes."""
    if data.generated is not None and (counted := rates.amounts.get(STORED)):
        return counted
    image_bytes = IMAGE_BYTES * (data.download.image_size / 256) ** 2
    return Amount(image_bytes + OTHER_BYTES, MANUAL_SIZES)


def _add_training(plan: Estimate, training: Training, rates: Rates, machine: MachineConfig) -> None:
    run, workers = training.run, max(1, machine.worker_counts.most)
    rate = training_rate(training, rates, machine)
    pairs = training.steps * run.training.batch_size if training.given_seconds is None else 0
    seconds = (training.given_seconds or 0.0) + rate.seconds(pairs, workers=workers)
    measuring = _evaluation_rate(training, rates, machine).seconds(training.evaluated.images)
    if not machine.validation_workers:
        seconds += training.evaluations * measuring
    rounds = -(-training.times // training.at_once)
    cores = workers * machine.cpus_per_worker * training.at_once
    gpus = workers * machine.use_gpu * training.at_once
    plan.spend(f"train {run.name}{_times(training)}", seconds * rounds, rate.rests_on, cores=cores, gpus=gpus)
    if training.given_seconds is None:
        amount = f"{training.steps:,} steps of {run.training.batch_size:,} pairs"
        speed = f"{rate.per_second * workers:.3g} pairs/s"
        plan.add(f"  {run.name}", f"{amount} at {speed}", "training.length, on all workers")
        _add_tokens(plan, training, rates, machine)
    _add_memory(plan, training, machine, workers)
    loading = rate.per_second / rates.of("loader").per_second
    plan.add("  loader", f"{loading:.2g} cores per worker", rates.of("loader").rests_on)
    if training.evaluated.images and training.measured_times:
        on = f"{training.evaluated.images:,} images ({training.evaluated.rests_on})"
        rests_on = f"{on}, {_evaluation_rate(training, rates, machine).rests_on}"
        seconds = measuring * training.measured_times
        plan.spend(f"evaluate {run.name}", seconds, rests_on, cores=1, gpus=int(machine.use_gpu))


def _times(training: Training) -> str:
    """How often a run is trained, where that is more than once."""
    if training.times == 1:
        return ""
    at_once = f", {training.at_once} at once" if training.at_once > 1 else ""
    return f" x {training.times}{at_once}"


def training_rate(training: Training, rates: Rates, machine: MachineConfig) -> Rate:
    """Pairs per second of one training worker: as it was measured, or by its FLOPs."""
    run = training.run
    if rate := rates.measured.get(part_of(run, machine)):
        return rate
    flops = rates.flops(machine)
    each = flops_of_step(run, 1)
    return Rate(
        flops.per_second / each, flops.start_seconds, f"{each / 1e9:.3g} GFLOPs per pair, {flops.rests_on}"
    )


def _evaluation_rate(training: Training, rates: Rates, machine: MachineConfig) -> Rate:
    """Images per second that a model is measured on: as it was measured, or by the FLOPs of whole images."""
    if rate := rates.measured.get(part_of(training.run, machine, "evaluate")):
        return rate
    rate, each = training_rate(training, rates, machine), image_flops(training.run.image_encoder)
    flops = rate.per_second * flops_of_step(training.run, 1)
    return Rate(flops / each, 0.0, f"{each / 1e9:.3g} GFLOPs per image as fast as the training's")


def _add_memory(plan: Estimate, training: Training, machine: MachineConfig, workers: int) -> None:
    run = training.run
    share = max(1, run.training.batch_size // workers // machine.memory.batch_parts)
    weights, activations = memory_of_step(run, share)
    activations //= 1 if run.training.precision == "fp32" else 2
    rests_on = f"counted, for {share:,} pairs at once in {run.training.precision}"
    if machine.memory.checkpoint_activations:
        rests_on += "; less, by machine.memory.checkpoint_activations"
    parts = f"{size_text(weights)} weights and optimizer, {size_text(activations)} activations"
    plan.add("  memory per worker", f"{size_text(weights + activations)}: {parts}", rests_on)
    _add_checkpoints(plan, training, machine, weights // COPIES)


def _add_tokens(plan: Estimate, training: Training, rates: Rates, machine: MachineConfig) -> None:
    """What the encoders read in one training, without what pads images that show fewer patches."""
    run, steps = training.run, training.steps
    length, seen = run.training.length, rates.amounts.get(part_of(run, machine, "visible"))
    rests_on = "counted" if run.mask.is_exact else "at most, by the least that the mask hides"
    if seen is not None and length.visible_patches is None:
        length, rests_on = replace(length, visible_patches=seen.value), seen.rests_on
        run = replace(run, training=replace(run.training, length=length))
    tokens = steps * run.training.batch_size * visible_tokens(run)
    plan.add("  visible tokens", f"{tokens:.3g}, {visible_tokens(run):.1f} of a pair", rests_on)


def _add_checkpoints(plan: Estimate, training: Training, machine: MachineConfig, weights: int) -> None:
    """What stays on disk of all trainings: checkpoints, and the weights that are tracked.

    Args:
        weights: bytes of a model's.
    """
    settings = machine.checkpoints
    made = -(-training.steps // settings.every_steps)
    kept = settings.keep + settings.keep_best
    if settings.keep_every_steps:
        kept += training.steps // settings.keep_every_steps
    kept = min(made, kept)
    tracked = {"all": kept, "none": 0}.get(settings.track, 1)
    size = training.times * weights * (kept * (COPIES - 1) + tracked)
    what = f"{kept} of each training, and the weights of {tracked} for MLflow"
    plan.add("  checkpoints", f"{size_text(size)}: {what}", "machine.checkpoints")


def _add_report(plan: Estimate, trainings: Sequence[Training], rates: Rates, machine: MachineConfig) -> None:
    workers, rate = max(1, machine.worker_counts.most), rates.of("report")
    steps = sum(
        one.run.training.batch_size / workers / training_rate(one, rates, machine).per_second
        for one in trainings
    )
    seconds = rate.start_seconds + min(STEPS_OF_REPORT * steps, MAX_SECONDS)
    plan.spend("report", seconds, rate.rests_on, cores=1, gpus=int(machine.use_gpu))


def _add_totals(plan: Estimate, trainings: Sequence[Training], machine: MachineConfig, given: Given) -> None:
    counts = machine.worker_counts
    plan.add(
        "workers",
        f"{counts} that train, {machine.data_workers} for data",
        "machine.num_workers, data_workers",
    )
    plan.add("in all", duration(plan.seconds), "the stages above, one after another")
    plan.add("core hours", f"{plan.core_hours:,.3g}", "hours times cores")
    plan.add("GPU hours", f"{plan.gpu_hours:,.3g}", "hours times GPUs")
    if given.price is None:
        return
    hours, unit = (plan.gpu_hours, "GPU") if machine.use_gpu else (plan.core_hours, "core")
    cost = hours * given.price
    plan.add("cost", f"{cost:,.2f}", f"{given.price:g} per {unit} hour (--price)")
    if given.budget is not None and cost:
        trials = sum(one.times for one in trainings)
        fit = int(given.budget / cost * trials)
        plan.add(
            "trials that fit", f"{fit:,} of such trainings", f"a budget of {given.budget:,.2f} (--budget)"
        )


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 2 * HOUR else f"{seconds / HOUR:,.1f} hours"
