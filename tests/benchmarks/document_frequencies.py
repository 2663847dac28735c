"""Document frequencies on one core, against a loop of open_clip's SimpleTokenizer and a counter; and memory.

Ours also counts the words, reads and writes every file that the stage does; only Ray is left out, whose
actors each do this. The captions are those of Flickr8k, each the first half of one and the second half of
another.

python tests/benchmarks/document_frequencies.py [--captions 2000000] [--runs 3]
"""

import hashlib
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
from harness import Result, Usage, command_line, flickr8k_captions, in_fresh_process, report, skip

from vlp.shards.storage.address import open_folder

NAME = "document_frequencies"
CAPTIONS_PER_SHARD = 10_000
TIMES_LARGER = 10


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--captions", type=int, default=2_000_000, help="how many")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    captions, num_captions = flickr8k_captions(), arguments.captions
    if captions is None:
        skip(NAME, "it needs the captions of Flickr8k")
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        write_indices(captions, shards, num_captions)
        turns = [
            (
                in_fresh_process(count, shards, Path(folder) / f"counts{run}", num_captions, 1),
                in_fresh_process(count_by_loop, shards),
            )
            for run in range(arguments.runs)
        ]
        larger = in_fresh_process(count, shards, Path(folder) / "larger", num_captions, TIMES_LARGER)
    ours, loop = (list(usages) for usages in zip(*turns, strict=True))
    report(NAME, results(ours, loop, larger, num_captions), arguments.results)


def results(ours: list[Usage], loop: list[Usage], larger: Usage, num_captions: int) -> list[Result]:
    """The lines of the table."""
    millions, peer_name = f"{num_captions / 1e6:g}M", "open_clip SimpleTokenizer and a Counter"
    return [
        Result(
            what=f"document frequencies of {millions} captions",
            unit="captions per second of a core",
            ours=[num_captions / usage.cpu_seconds for usage in ours],
            peer=[num_captions / usage.cpu_seconds for usage in loop],
            peer_name=peer_name,
        ),
        Result(
            what=f"peak memory of the process, {millions} captions",
            unit="MiB",
            ours=[usage.peak_mib for usage in ours],
            peer=[usage.peak_mib for usage in loop],
            peer_name=peer_name,
        ),
        Result(
            what=f"peak memory of the process, {TIMES_LARGER} times the captions",
            unit="MiB",
            ours=[larger.peak_mib],
            peer=[median(usage.peak_mib for usage in ours)],
            peer_name=f"ours on {millions} captions",
        ),
    ]


def write_indices(captions: list[str], shards: Path, num_captions: int) -> None:
    """The columns of the shards' indices that are read."""
    shards.mkdir()
    words = [caption.split() for caption in captions]
    halves = [(" ".join(text[: len(text) // 2]), " ".join(text[len(text) // 2 :])) for text in words]
    for start in range(0, num_captions, CAPTIONS_PER_SHARD):
        texts = [
            [f"{halves[i % len(halves)][0]} {halves[i * 7919 // 35 % len(halves)][1]}"]
            for i in range(start, min(start + CAPTIONS_PER_SHARD, num_captions))
        ]
        table = {"status": ["success"] * len(texts), "captions": pa.array(texts)}
        pq.write_table(pa.table(table), shards / f"{start // CAPTIONS_PER_SHARD:05d}.parquet")


def count(shards: Path, parts: Path, num_captions: int, times: int) -> None:
    """What an actor of the stage does for each shard, and what the stage then does with the parts."""
    from functools import reduce
    from operator import add

    from pipelines.shards.counts import CountShard, read_tokens, tokens_file, words_file
    from vlp.tokenizers.clip_bpe import ClipBPEConfig
    from vlp.tokenizers.words import add_word_counts

    parts.mkdir()
    tokenizer = ClipBPEConfig()
    count_shard = CountShard(open_folder(shards), [tokenizer], open_folder(parts))
    names = [file.stem for file in sorted(shards.glob("*.parquet"))]
    checksums = []
    for turn in range(times):
        for name in names:
            checksums.append(hashlib.sha256(f"{turn} {name}".encode()).hexdigest())
            count_shard({"name": name, "tar_sha256": checksums[-1]})
    identity = tokenizer.build().identity
    total = reduce(add, (read_tokens(tokens_file(parts, checksum, identity)) for checksum in checksums))
    add_word_counts((words_file(parts, checksum) for checksum in checksums), parts / "words.parquet")
    assert total.num_documents == times * num_captions


def count_by_loop(shards: Path) -> None:
    """The same numbers in the fewest lines."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer, counts = SimpleTokenizer(), Counter()
    for file in sorted(shards.glob("*.parquet")):
        for captions in pq.read_table(file)["captions"].to_pylist():
            for caption in captions:
                counts.update(set(tokenizer.encode(caption)[:75]))
    assert counts


if __name__ == "__main__":
    main()
