"""Ray Data: a URL list to shards of images and captions, with img2dataset's parts.

A shard is the unit of work: it is fetched, resized and written by one actor, and exists whole or not at
all. What is committed is what is done, so a stage that was interrupted goes on with the missing shards, and
the bytes of every shard are those of an undisturbed run.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import pyarrow.feather

from pipelines.cluster import connect
from pipelines.config import MachineConfig, fingerprint, to_dict
from pipelines.config_errors import ConfigError
from pipelines.ingest.shard import Sample, remove_temporary, write_json, write_shard
from pipelines.ingest.url_list import InputFormat, file_digest, list_files, read_url_list, write_plan
from pipelines.journal import Journal
from pipelines.progress import Progress
from vlp.config import StrictConfig
from vlp.data.shards import MANIFEST, read_manifest


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(StrictConfig):
    """What is downloaded and how it is stored. Names and defaults are img2dataset's where it has them."""

    url_list: Path
    """File, or folder of files, with one URL and caption per row."""
    input_format: InputFormat = "auto"
    url_col: str = "url"
    caption_col: str = "caption"
    """Column of texts, or of lists of texts."""
    image_size: int = 256
    """Pixels; of which side depends on `resize_mode`."""
    resize_mode: Literal["no", "keep_ratio", "center_crop", "border", "keep_ratio_largest"] = "keep_ratio"
    resize_only_if_bigger: bool = True
    encode_quality: int = 95
    """JPEG quality, 0 to 100."""
    number_sample_per_shard: int = 10_000
    """URLs per shard."""
    min_image_size: int = 0
    """Images with a shorter side in pixels are dropped."""
    max_aspect_ratio: float = float("inf")
    """Images with a larger ratio of the sides are dropped."""
    thread_count: int = 64
    """Requests at a time, per actor."""
    timeout: float = 10.0
    """Seconds without an answer."""
    retries: int = 1
    user_agent_token: str | None = None
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    """X-Robots-Tag values that are honoured; [] honours none."""

    def __post_init__(self) -> None:
        for key in ("image_size", "number_sample_per_shard", "thread_count"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, got {getattr(self, key)}")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be above 0, got {self.timeout}")
        if self.retries < 0:
            raise ValueError(f"retries must not be negative, got {self.retries}")
        if not 0 <= self.encode_quality <= 100:
            raise ValueError(f"encode_quality must be in [0, 100], got {self.encode_quality}")


def download(
    config: DownloadConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> dict[str, Any]:
    """Make the folder of shards; returns its manifest.

    Raises:
        ConfigError: the URL list cannot be read, or the folder was made from another list or other settings.
    """
    identity = plan(config, output)
    todo = _missing_shards(output)
    total = json.loads((output / "plan" / "plan.json").read_text())
    done = total["num_shards"] - len(todo)
    journal.dataset(
        name=config.url_list.name,
        digest=identity,
        source=str(config.url_list.absolute()),
        context="download",
        profile={"num_urls": total["num_urls"], "identity": identity},
    )
    progress = Progress("download", total["num_shards"], "shards")
    if done:
        print(f"[download] {done:,} of {total['num_shards']:,} shards are there already", flush=True)
    outcomes = Counter[str]()
    for stats in _committed(output):
        outcomes.update(stats["status_dict"])
    for stats in _ingest(config, output, todo, machine) if todo else ():
        done += 1
        outcomes.update(stats["status_dict"])
        journal.metrics({f"download/{k}": v for k, v in outcomes.items()}, step=done)
        progress.update(done, _summary(outcomes))
    return _write_manifest(output, identity)


def plan(config: DownloadConfig, output: Path) -> str:
    """Divide the URL list into shards, unless that was done before; returns the identity of the result."""
    files = list_files(config.url_list, config.input_format)
    settings = to_dict(config)
    for key in ("url_list", "thread_count", "timeout"):  # where and how fast, not what
        del settings[key]
    identity = fingerprint(file_digest(files), settings)
    plan_file = output / "plan" / "plan.json"
    if plan_file.is_file():
        if json.loads(plan_file.read_text())["identity"] != identity:
            raise ConfigError(
                f"{output} was made from another URL list or other settings; choose another output folder"
            )
        return identity
    table = read_url_list(
        config.url_list,
        input_format=config.input_format,
        url_col=config.url_col,
        caption_col=config.caption_col,
    )
    write_plan(table, output / "plan", identity=identity, shard_size=config.number_sample_per_shard)
    return identity


class IngestShard:
    """An actor that turns the URLs of a shard into the shard."""

    def __init__(self, config: DownloadConfig, output: Path) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # img2dataset imports a library that phones home
        from img2dataset.resizer import Resizer

        from pipelines.ingest.fetch import Fetcher

        self.config = config
        self.output = output
        self.resizer = Resizer(
            config.image_size,
            config.resize_mode,
            config.resize_only_if_bigger,
            encode_quality=config.encode_quality,
            min_image_size=config.min_image_size,
            max_aspect_ratio=config.max_aspect_ratio,
        )
        self.fetch = Fetcher(
            timeout=config.timeout,
            retries=config.retries,
            user_agent_token=config.user_agent_token,
            disallowed_header_directives=frozenset(config.disallowed_header_directives),
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        name = row["name"]
        urls = pyarrow.feather.read_table(self.output / "plan" / f"{name}.arrow").to_pylist()
        samples = sorted(self._samples(int(name), urls), key=lambda sample: sample.key)
        return {"stats": json.dumps(write_shard(self.output, name, samples))}

    def _samples(self, shard: int, rows: list[dict[str, Any]]) -> Iterable[Sample]:
        """Requests run in threads, resizing in this one, each as its answer comes."""
        from img2dataset.downloader import compute_key

        from pipelines.ingest.fetch import store

        digits = len(str(self.config.number_sample_per_shard - 1))
        with ThreadPool(self.config.thread_count) as pool:
            answers = pool.imap_unordered(lambda i: (i, self.fetch(rows[i]["url"])), range(len(rows)))
            for i, answer in answers:
                key = compute_key(i, shard, digits, 5)
                yield Sample(key, rows[i]["url"], rows[i]["captions"], store(answer, self.resizer))


def _ingest(
    config: DownloadConfig, output: Path, todo: list[str], machine: MachineConfig
) -> Iterable[dict[str, Any]]:
    connect(machine, min_cpus=1)
    import ray.data

    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=min(machine.data_workers, len(todo)))
    rows = ray.data.from_items([{"name": name} for name in todo], override_num_blocks=len(todo)).map(
        IngestShard,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(config, output.absolute()),
        compute=actors,
        num_cpus=1,
    )
    for row in rows.iter_rows():
        yield json.loads(row["stats"])


def _committed(output: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(output.glob("*_stats.json"))]


def _missing_shards(output: Path) -> list[str]:
    names = sorted(file.stem for file in (output / "plan").glob("*.arrow"))
    return [name for name in names if not (output / f"{name}_stats.json").is_file()]


def _write_manifest(output: Path, identity: str) -> dict[str, Any]:
    shards = _committed(output)
    outcomes = Counter[str]()
    for stats in shards:
        outcomes.update(stats["status_dict"])
    manifest = {
        "identity": identity,
        "digest": fingerprint([stats["tar_sha256"] for stats in shards]),
        "num_urls": sum(stats["count"] for stats in shards),
        "num_samples": sum(stats["successes"] for stats in shards),
        "outcomes": dict(sorted(outcomes.items())),
        "shards": shards,
    }
    write_json(output / MANIFEST, manifest)
    remove_temporary(output)
    return read_manifest(output)


def _summary(outcomes: Counter[str]) -> str:
    total = sum(outcomes.values())
    failures = [(k, n) for k, n in outcomes.most_common() if k != "success"][:3]
    reasons = "; " + ", ".join(f"{reason} {n:,}" for reason, n in failures) if failures else ""
    return f"{outcomes['success'] / total:.1%} of {total:,} URLs succeeded{reasons}"
