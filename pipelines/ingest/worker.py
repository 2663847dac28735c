"""A worker that turns the URLs of a shard into the shard."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

from pipelines.ingest.fetch import Fetcher, ImageRequest
from pipelines.ingest.isolated import IsolatedImageStore
from pipelines.ingest.local import LocalImages
from pipelines.ingest.plan import read_more, read_urls
from pipelines.ingest.settings import DownloadConfig
from vlp.shards.contents import ShardStats
from vlp.shards.outcome import StoredImage
from vlp.shards.storage.folder import Folder
from vlp.shards.writing import Sample, Spool, write_shard

REPORT_SECONDS = 1.0
MAX_ATTEMPTS = 3
Report = Callable[[str, Counter[str]], bool]
"""Takes the outcomes of a shard so far; says whether the download goes on."""
Begin = Callable[[str], int]
"""Takes the name of a shard; says how often it was begun, now included."""


class IngestShard:
    """Fetches, resizes and writes one shard at a time.

    Images are decoded in a process of its own, so that one that a decoder dies of, or is busy with for ever,
    costs only itself. A shard in which this process died is made again; after `MAX_ATTEMPTS` it is given up.

    Args:
        num_workers: how many of them there are, which share the limits per host.
    """

    def __init__(
        self,
        config: DownloadConfig,
        output: Folder,
        num_workers: int,
        report: Report,
        begin: Begin = lambda name: 1,
    ) -> None:
        self.config = config
        self.output = output
        self.report = report
        self.begin = begin
        self.parent = os.getppid()
        self.fetcher = LocalImages(config) if config.is_local else Fetcher(config, num_fetchers=num_workers)
        self.store = IsolatedImageStore(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """`stats` of a shard that was made; `failure`, if it cannot be; neither, if it was stopped."""
        try:
            # A task whose result was lost with its node is run again.
            stats = self._committed(row["name"]) or self.ingest(row["name"])
        except OSError as error:
            return {"stats": "", "failure": str(error)}
        return {"stats": json.dumps(stats.to_json()) if stats else "", "failure": ""}

    def ingest(self, name: str) -> ShardStats | None:
        """Make a shard; None if the download is stopped before its end. An OSError leaves nothing behind."""
        if self.begin(name) > MAX_ATTEMPTS:
            raise ChildProcessError(
                f"shard {name} ended its process {MAX_ATTEMPTS} times, by lack of memory or a library that "
                "crashes; lower max_buffer_bytes or max_image_area, or set machine.data_workers=1"
            )
        rows = read_urls(self.output, name)
        with closing(Spool(self.output)) as spool:
            if not self._fill(spool, name, rows):
                return None
            retried = Counter(row["previous"] for row in rows if row["previous"])
            more = read_more(self.output, name)
            return write_shard(self.output, name, spool, more=more, retried=retried)

    def _committed(self, name: str) -> ShardStats | None:
        try:
            return ShardStats.read(self.output, name)
        except FileNotFoundError:
            return None

    def _fill(self, spool: Spool, name: str, rows: list[dict[str, Any]]) -> bool:
        """Put every sample away; whether the download goes on."""
        outcomes = Counter[str]()

        def add(i: int, captions: list[str], image: StoredImage) -> None:
            key = sample_key(int(name), i, shard_size=self.config.number_sample_per_shard)
            spool.add(Sample(key, rows[i]["url"], captions, image, rows[i].get("more") or {}))
            outcomes[image.outcome] += 1

        captions = [self._fitting(row["captions"]) for row in rows]
        asked = [i for i, texts in enumerate(captions) if texts or self._needs_none(rows[i]["captions"])]
        for i in sorted(set(range(len(rows))) - set(asked)):
            add(i, rows[i]["captions"], StoredImage("caption", "no caption has the length asked for"))
        reported = time.monotonic()
        with self.fetcher.fetch([ImageRequest(rows[i]["url"], rows[i]["digest"]) for i in asked]) as answers:
            for answer in answers:
                if answer is not None:
                    position, download = answer
                    add(asked[position], captions[asked[position]], self.store(download))
                    self.fetcher.release(download)
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    if not self._goes_on(name, outcomes):
                        return False
        return self._goes_on(name, outcomes)

    def _goes_on(self, name: str, outcomes: Counter[str]) -> bool:
        """Report; an orphan stops: who answered it may have gone with its driver, as a demo server does."""
        return os.getppid() == self.parent and self.report(name, outcomes)

    def _needs_none(self, captions: list[str]) -> bool:
        """Whether an image is stored without a caption: it never had one, and none is asked for."""
        return not captions and not self.config.min_caption_length

    def _fitting(self, captions: list[str]) -> list[str]:
        low, high = self.config.min_caption_length, self.config.max_caption_length
        return [caption for caption in captions if low <= len(caption) <= high]


def sample_key(shard: int, index: int, *, shard_size: int) -> str:
    """Name of a sample in its shard, as img2dataset counts them: five digits of the shard, then the index."""
    digits = len(str(shard_size - 1))
    return f"{10**digits * shard + index:0{digits + 5}d}"
