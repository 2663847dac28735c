"""The data card of a folder of shards: counts, sizes, captions and outcomes, as Markdown and a picture."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shards.reshard import SourceFolder
from vlp.core.markdown import markdown_table
from vlp.pictures.distributions import Histogram, distributions
from vlp.shards.outcome import SUCCESS
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

CARD, PICTURE = "card.md", "distributions.png"
COLUMNS = ["url", "status", "captions", "original_width", "original_height", "width", "sha256", "image_size"]
HOSTS_SHOWN = 10


@dataclass
class Seen:
    """What the shards hold, added up one after another; only hosts and checksums grow with the data."""

    hosts: Counter[str] = field(default_factory=Counter)
    checksums: list[np.ndarray] = field(default_factory=list)
    """(successes,) uint64 per shard: the first 64 bits, so equal images are found but for chance."""
    short_side: Histogram = field(
        default_factory=lambda: Histogram.empty("short side of the original, pixels", highest=4000, step=16)
    )
    kilobytes: Histogram = field(
        default_factory=lambda: Histogram.empty("stored image, KiB", highest=500, step=2)
    )
    words: Histogram = field(default_factory=lambda: Histogram.empty("words per caption", highest=100))
    captions: Histogram = field(default_factory=lambda: Histogram.empty("captions per image", highest=20))

    def add(self, index: pa.Table) -> None:
        """Count one shard."""
        good = index.filter(pc.field("status") == SUCCESS)
        self.hosts.update(urlsplit(url).hostname or "" for url in good["url"].to_pylist() if url)
        sums = [int(digest[:16], 16) for digest in good["sha256"].to_pylist() if digest]
        self.checksums.append(np.array(sums, dtype=np.uint64))
        sides = [good[f"original_{side}"].to_numpy() for side in ("width", "height")]
        self.short_side.add(np.minimum(*sides))
        self.kilobytes.add(good["image_size"].to_numpy() // 1024)
        captions = good["captions"].to_pylist()
        self.captions.add(np.array([len(texts) for texts in captions], dtype=np.int64))
        self.words.add(np.array([len(text.split()) for texts in captions for text in texts], dtype=np.int64))

    @property
    def histograms(self) -> list[Histogram]:
        """What is drawn."""
        return [self.short_side, self.kilobytes, self.words, self.captions]

    def num_repeated_images(self) -> int:
        """Images whose bytes are also those of an earlier one."""
        sums = np.concatenate(self.checksums)
        return len(sums) - len(np.unique(sums))


def describe(folder: Path | Folder, output: Path | Folder) -> str:
    """Write the card and its picture into a folder; returns the card.

    Raises:
        UserError: the folder of shards is not complete.
    """
    source, seen = SourceFolder.open(folder), Seen()
    for name in source.shards:
        seen.add(source.index(name, COLUMNS))
    card, output = _card(source, seen), open_folder(output)
    with output.writing(PICTURE) as stream:
        distributions(seen.histograms, source.manifest.outcomes).save(stream, "PNG")
    output.write(CARD, card.encode())
    return card


def _card(source: SourceFolder, seen: Seen) -> str:
    manifest = source.manifest
    num_bytes = sum(stats.tar_bytes for stats in manifest.shards)
    facts = {
        "digest": manifest.digest,
        "shards": f"{len(source.shards):,}",
        "URLs": f"{manifest.num_urls:,}",
        "images": f"{manifest.num_samples:,}",
        "captions": f"{int(seen.words.counts.sum()):,}",
        "tar files": f"{num_bytes / 2**30:,.2f} GiB",
        "images with the bytes of an earlier one": f"{seen.num_repeated_images():,}",
    }
    quartiles = [
        [histogram.label, *(f"{histogram.quantile(share):,}" for share in (0.05, 0.25, 0.5, 0.75, 0.95))]
        for histogram in seen.histograms
    ]
    total = max(1, manifest.num_urls)
    outcomes = [
        [outcome, f"{count:,}", f"{count / total:.2%}"]
        for outcome, count in sorted(manifest.outcomes.items(), key=lambda item: -item[1])
    ]
    hosts = [[host, f"{count:,}"] for host, count in seen.hosts.most_common(HOSTS_SHOWN)]
    parts = [
        f"# {source.folder.name}\n",
        markdown_table(["", ""], facts.items()),
        f"![Distributions]({PICTURE})\n",
        markdown_table(["quantile", "5 %", "25 %", "50 %", "75 %", "95 %"], quartiles),
        markdown_table(["outcome", "URLs", "share"], outcomes),
        markdown_table(["most frequent hosts", "images"], hosts),
    ]
    return "\n".join(parts)
