"""Commands in a network of their own, in which this machine is the public internet, a cluster and a store.

`python -m tests.servers.internet FOLDER` reads commands as JSON, a list of lists of words, from its input,
and runs one after another in the folder; what became of each is a line of JSON. `in_a_network` starts it.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.corpus.serve import ImageServer
from tests.paths import REPOSITORY
from tests.servers.object_store import serving
from tests.servers.ray_head import ray_head

ADDRESS = "93.184.216.34"
"""A public one, of which nobody else hears: no packet leaves the network."""
NETWORK = (
    f"ip link set lo up && ip address add {ADDRESS}/32 dev lo && ip route add default dev lo src 127.0.0.1 "
    '&& exec "$@"'
)
NUM_IMAGES = 12
VLP = "import sys; from pipelines.commands.main import main; main(sys.argv[1:])"
TINY = (
    *("image_encoder.image_size=32", "image_encoder.patch_size=8", "image_encoder.width=16"),
    *("image_encoder.depth=1", "image_encoder.num_heads=2", "objective.embed_dim=8"),
    *("objective.text_encoder.width=16", "objective.text_encoder.depth=1"),
    *("objective.text_encoder.num_heads=2", "training.length.steps=1", "training.batch_size=4"),
    *("training.precision=fp32", "lr_schedule.warmup_steps=0", "machine.num_workers=0"),
)


class Done(NamedTuple):
    """What became of a command."""

    words: list[str]
    code: int
    output: str


def in_a_network(commands: Sequence[Sequence[str]], place: Path) -> list[Done]:
    """Run commands there; the test is skipped where no process may have a network of its own."""
    start = ["unshare", "--map-root-user", "--net", "sh", "-c", NETWORK, "sh"]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([*start, "true"], capture_output=True).returncode == 0:
            done = subprocess.run(
                [*start, sys.executable, "-m", __name__, str(place)],
                input=json.dumps(commands),
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return [Done(**json.loads(line)) for line in done.stdout.splitlines()]
    pytest.skip("needs unshare and ip, and the right to make a network")


def run_all(commands: Sequence[Sequence[str]], place: Path) -> Iterator[Done]:
    """Run commands in a folder that holds what they name."""
    (place / "web").mkdir()
    (place / "ray").mkdir()
    pictures = [picture(i) for i in range(NUM_IMAGES)]
    for i, encoded in enumerate(pictures):
        (place / "web" / f"{i}.jpg").write_bytes(encoded)
    with (
        short_folder() as os.environ["RAY_TMPDIR"],
        ImageServer(place / "web", host=ADDRESS) as server,
        serving(os.environ) as store,
    ):
        os.environ["AWS_ENDPOINT_URL_S3"] = store.address  # of the cluster's nodes, too
        store.bucket("bucket")
        write_sources(place, server.url, pictures)
        with ray_head(place / "ray", num_cpus=16) as head:
            environment = os.environ | {"RAY_ADDRESS": head.address}
            for words in commands:
                prepare(words, place, environment)
                yield vlp(words[1:], place, environment)


def short_folder() -> TemporaryDirectory[str]:
    """A folder whose name leaves room for Ray's sockets; other Rays of this machine keep theirs."""
    return TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)


def vlp(words: Sequence[str], place: Path, environment: Mapping[str, str]) -> Done:
    """Run one command."""
    done = subprocess.run(
        [sys.executable, "-c", VLP, *words],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Done(["vlp", *words], done.returncode, done.stdout)


def picture(seed: int) -> bytes:
    """A JPEG file of large random squares, which looks like no other."""
    squares = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(squares).resize((270, 270), Image.Resampling.NEAREST).save(stream, "JPEG")
    return stream.getvalue()


def write_sources(place: Path, url: str, pictures: Sequence[bytes]) -> None:
    """Every list and data set that the commands name."""
    captions = [f"caption {i}" for i in range(len(pictures))]
    urls = [f"{url}/{i}.jpg" for i in range(len(pictures))]
    pairs = pa.table({"url": [*urls, f"{url}/missing.jpg"], "caption": [*captions, "lost"]})
    pq.write_table(pairs, place / "pairs.parquet")
    table = pa.table({"image": pa.array(pictures, pa.binary()), "caption": captions})
    pq.write_table(table, place / "data.parquet")
    (place / "saved" / "data").mkdir(parents=True)
    pq.write_table(table, place / "saved" / "data" / "train-00000-of-00001.parquet")
    several = pa.table({"image": table["image"], "captions": [[text, f"{text} again"] for text in captions]})
    pq.write_table(several, place / "dev.parquet")
    (place / "photos").mkdir()
    for i, encoded in enumerate(pictures):
        (place / "photos" / f"{i}.jpg").write_bytes(encoded)
        (place / "photos" / f"{i}.txt").write_text(captions[i])
    (place / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "caption"]))


def prepare(words: Sequence[str], place: Path, environment: Mapping[str, str]) -> None:
    """Make what a command finds already there, or takes away what it makes anew."""
    line = " ".join(words)
    for pattern, make in PREPARATIONS.items():
        if re.search(pattern, line):
            make(place, environment)


def _take_shards_away(place: Path, environment: Mapping[str, str]) -> None:
    shutil.rmtree(place / "shards", ignore_errors=True)


def _train(place: Path, environment: Mapping[str, str]) -> None:
    done = vlp(["pretrain", "conf/run/flip.yaml", "data.shards=shards", *TINY], place, environment)
    assert done.code == 0, done.output
    (made,) = (place / "results" / "pretrain").glob("flip-*")
    made.rename(made.with_name("flip-1a2b3c4d"))


def _copy_tars(place: Path, environment: Mapping[str, str]) -> None:
    (place / "laion").mkdir()
    for tar in (place / "shards").glob("*.tar"):
        shutil.copy(tar, place / "laion")


def _copy_shards(place: Path, environment: Mapping[str, str]) -> None:
    shutil.copytree(place / "shards", place / "more")


def _list_keys(place: Path, environment: Mapping[str, str]) -> None:
    keys = pq.read_table(place / "shards" / "00000.parquet")["key"].to_pylist()
    (place / "good.txt").write_text("\n".join(keys[:5]))


PREPARATIONS: Mapping[str, Callable[[Path, Mapping[str, str]], None]] = {
    r"^vlp download (?!.*--retry-failed).* -o shards$": _take_shards_away,
    r"^vlp evaluate checkpoint=results/pretrain/flip-1a2b3c4d ": _train,
    r"^vlp data index laion ": _copy_tars,
    r"^vlp data merge shards more ": _copy_shards,
    r"^vlp data subset shards keys=good.txt ": _list_keys,
}


if __name__ == "__main__":
    for outcome in run_all(json.load(sys.stdin), Path(sys.argv[1])):
        print(json.dumps(outcome._asdict()), flush=True)
