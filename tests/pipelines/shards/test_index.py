"""Tars that others wrote become folders of shards where they lie, for every command."""

import ctypes
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.corpus.serve import ImageServer
from pipelines.shards.docfreq import DocfreqConfig, docfreq
from pipelines.shards.index import index
from pipelines.shards.verify import verify
from pipelines.tracking.journal import Journal
from vlp.data.loader import TrainingPairs, open_shards
from vlp.data.order import Draw
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.address import open_folder

webdataset: Any = pytest.importorskip("webdataset")
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
WITHOUT_RAY = "machine.data_workers=0"
HERE = MachineConfig(data_workers=0)
IMG2DATASET = """
import sys
from img2dataset import download
download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet", output_format="webdataset",
    image_size=24, encode_format=sys.argv[3], encode_quality=9, processes_count=1, thread_count=4,
    number_sample_per_shard=9, url_col="url", caption_col="caption",
    save_additional_columns=["captions", "similarity", "tags"])
"""


def picture(seed: int, suffix: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, FORMATS[suffix])
    return stream.getvalue()


@pytest.fixture(
    scope="module",
    params=["jpg", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in ("png", "webp"))],
)
def img2datasets(
    request: pytest.FixtureRequest, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three shards that the real img2dataset wrote, of 24 URLs of which two fail."""
    folder = tmp_path_factory.mktemp("img2dataset")
    names = sorted(file.name for file in (tiny_world / "train").glob("*.jpg"))
    with ImageServer(tiny_world / "train") as server:
        urls = [f"{server.url}/{name if i % 12 else 'missing.jpg'}" for i, name in enumerate(names)]
        captions = [[f"first {i}", f"second {i}"] for i in range(len(urls))]
        rows = {"url": urls, "caption": [texts[0] for texts in captions], "captions": captions}
        rows |= {"similarity": [i / 24 for i in range(24)], "tags": [["x", str(i)] for i in range(24)]}
        pq.write_table(pa.table(rows), folder / "urls.parquet")
        arguments = [str(folder / "urls.parquet"), str(folder / "shards"), request.param]
        done = subprocess.run([sys.executable, "-c", IMG2DATASET, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "shards"


@pytest.fixture
def foreign(img2datasets: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(img2datasets, tmp_path / "foreign"))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two tars of webdataset's own writer: images of every format, captions as text and as JSON."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(folder / f"train-{shard:03d}.tar")) as writer:
            for i, suffix in enumerate([*FORMATS, *FORMATS]):
                key = f"part/{shard}{i:03d}"
                texts = [f"caption {k} of {key}" for k in range(1 + i % 3)]
                writer.write(
                    {"__key__": key, suffix: picture(6 * shard + i, suffix)}
                    | ({"json": {"captions": texts}} if i % 2 else {"txt": f"{texts[0]}\n"})
                )
    return folder


def check_all_commands(folder: Path, vlp: Any, tmp_path: Path, tiny_run: Callable[[], RunConfig]) -> None:
    """Verify, describe and merge the folder; count its captions; draw training pairs from it."""
    assert list(verify(folder)) == []
    card = vlp("describe", folder, "-o", tmp_path / "card")
    shards = ShardSet(folder)
    assert f"| images | {len(shards)} |" in card.stdout
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    merged = vlp("merge", folder, other, "-o", tmp_path / "merged")
    assert merged.exit_code == 0, merged.stderr
    assert list(verify(tmp_path / "merged")) == []
    assert contents(tmp_path / "merged") == contents(folder)
    journal = Journal(tmp_path / "journal")
    journal.begin(name="docfreq", tags={})
    counted = docfreq(
        DocfreqConfig(shards=open_folder(folder)),
        tmp_path / "frequencies",
        machine=HERE,
        journal=journal,
    )
    assert counted.num_documents == sum(len(texts) for _, texts in contents(folder))
    config = tiny_run().data
    pairs = TrainingPairs(open_shards(config, captioned=True), config, image_size=32, seed=0)
    assert all(not pairs[Draw(i, 0)].unreadable for i in range(len(shards)))


def contents(folder: Path) -> list[tuple[bytes, list[str]]]:
    shards = ShardSet(folder)
    return [(shards.image_bytes(i), shards.captions(i)) for i in range(len(shards))]


def read_by_webdataset(folder: Path) -> Iterator[tuple[bytes, list[str]]]:
    """Image and captions of every sample, as its own reader finds them."""
    tars = [str(file) for file in sorted(folder.glob("*.tar"))]
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        image = next(sample[suffix] for suffix in FORMATS if suffix in sample)
        if "json" in sample:
            yield image, json.loads(sample["json"])["captions"]
        else:
            yield image, [sample["txt"].decode().strip()]


def test_what_img2dataset_wrote_is_a_folder_of_shards(foreign: Path, vlp: Any, tmp_path: Path) -> None:
    before = {file.name: pq.read_table(file) for file in foreign.glob("*.parquet")}
    stats = {file.name: json.loads(file.read_text()) for file in foreign.glob("*_stats.json")}
    result = vlp("index", foreign, WITHOUT_RAY)
    assert result.exit_code == 0, result.stderr
    assert "22 samples in 3 tars, 2 http_404" in result.stdout
    assert contents(foreign) == list(read_by_webdataset(foreign))
    for name, table in before.items():
        kept = [column for column in table.column_names if column not in ("captions", "status")]
        assert pq.read_table(foreign / name).select(kept).equals(table.select(kept))
    for name, counts in stats.items():
        assert (
            json.loads((foreign / name).read_text()).items()
            >= {
                key: counts[key]
                for key in ("count", "successes", "failed_to_download", "duration", "start_time")
            }.items()
        )
        assert json.loads((foreign / name).read_text())["status_dict_of_img2dataset"] == counts["status_dict"]
    first = vlp("subset", foreign, "similarity>=0.9", "status==success", "-o", tmp_path / "similar")
    assert first.exit_code == 0, first.stderr
    chosen = pq.read_table(tmp_path / "similar/00000.parquet").sort_by("similarity")
    assert chosen["similarity"].to_pylist() == [i / 24 for i in range(22, 24)]
    assert chosen["tags"].to_pylist() == [["x", str(i)] for i in range(22, 24)]


@pytest.mark.parametrize("img2datasets", ["jpg"], indirect=True)
def test_every_command_takes_what_img2dataset_wrote(
    foreign: Path, vlp: Any, tmp_path: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    assert vlp("index", foreign, WITHOUT_RAY).exit_code == 0
    check_all_commands(foreign, vlp, tmp_path, lambda: tiny_run(data={"shards": str(foreign)}))


def test_the_columns_of_img2dataset_are_in_its_tars_too(foreign: Path, vlp: Any, tmp_path: Path) -> None:
    for file in [*foreign.glob("*.parquet"), *foreign.glob("*.json")]:
        file.unlink()
    index(foreign, machine=HERE)
    assert vlp("subset", foreign, "similarity>=0.9", "-o", tmp_path / "similar").exit_code == 0
    chosen = pq.read_table(tmp_path / "similar/00000.parquet")["similarity"].to_pylist()
    assert sorted(chosen) == [22 / 24, 23 / 24]


def test_what_webdataset_wrote_is_a_folder_of_shards(
    ray_cluster: None, plain: Path, vlp: Any, tmp_path: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    index(plain, machine=MachineConfig())
    assert contents(plain) == list(read_by_webdataset(plain))
    check_all_commands(plain, vlp, tmp_path, lambda: tiny_run(data={"shards": str(plain)}))


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())}


def test_a_second_call_does_nothing_and_an_interrupted_one_goes_on(plain: Path) -> None:
    index(plain, machine=HERE)
    before = state(plain)
    index(plain, machine=HERE)
    assert state(plain) == before
    (plain / "manifest.json").unlink()
    (plain / "train-001_stats.json").unlink()  # the last file of a shard
    (plain / "train-001_stats.json.0123abcd.tmp").touch()
    index(plain, machine=HERE)
    after = state(plain)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    assert after["train-000.parquet"] == before["train-000.parquet"]


def test_a_folder_that_was_downloaded_stays_as_it_is(folder: Path) -> None:
    before = state(folder)
    index(folder, machine=HERE)
    assert state(folder) == before


def test_broken_tars_are_counted_and_reported_and_no_obstacle(plain: Path, vlp: Any) -> None:
    whole = contents_after_indexing_a_copy(plain)
    cut, damaged, compressed = (plain / f"train-{name}.tar" for name in ("002", "003", "004"))
    first = (plain / "train-000.tar").read_bytes()
    cut.write_bytes(first[:7000])
    damaged.write_bytes(first[:2560] + b"garbage" * 100 + first[3260:])
    compressed.write_bytes(b"\x1f\x8b" + first)
    result = vlp("index", plain, WITHOUT_RAY)
    assert result.exit_code == 0, result.stderr
    for name in ("train-002", "train-003", "train-004"):
        assert f"{name}.tar: broken" in result.stdout
    said = [line for line in result.stdout.splitlines() if not line.startswith("[index] ")]  # progress
    assert len(said) == 4  # the last is the total
    assert "2 broken_tar" in result.stdout
    assert contents(plain)[: len(whole)] == whole
    assert all(sample in whole for sample in contents(plain))
    problems = list(verify(plain))
    assert any("train-002.tar: is torn" in problem for problem in problems)
    assert not any("train-000" in problem or "train-001" in problem for problem in problems)


def contents_after_indexing_a_copy(folder: Path) -> list[tuple[bytes, list[str]]]:
    copy = Path(shutil.copytree(folder, folder.with_name("copy")))
    index(copy, machine=HERE)
    return contents(copy)


def test_a_tar_that_was_repaired_is_indexed_again(plain: Path) -> None:
    tar = plain / "train-001.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:3000])
    assert index(plain, machine=HERE).outcomes["broken_tar"] == 1
    tar.write_bytes(content)
    manifest = index(plain, machine=HERE)
    assert manifest.outcomes == {"success": 12}
    assert manifest.shards[1].problem is None
    assert list(verify(plain)) == []


def test_mistakes_are_one_line(plain: Path, vlp: Any, tmp_path: Path) -> None:
    (plain / "train-000.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty").mkdir()
    cases = {
        (tmp_path / "empty",): "empty holds no tar file",
        (tmp_path,): f"holds no tar file; name {plain}, which does",
        (tmp_path / "nowhere",): "nowhere holds no tar file",
        (plain,): "train-000.parquet is not a Parquet file; move it elsewhere",
        (plain, "machin.data_workers=2"): "machin is not a setting; did you mean machine?",
    }
    for arguments, expected in cases.items():
        with pytest.raises(SystemExit) as ended:
            raise vlp("index", *arguments).exception
        assert ended.value.code == 2
        result = vlp("index", *arguments)
        assert expected in result.stderr
        assert result.stderr.count("\n") == 1


def without_roots_privilege() -> None:
    """So that root, too, is held to the mode of a folder."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(plain: Path) -> None:
    plain.chmod(0o555)
    code = "import sys; from pipelines.commands.main import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "index", str(plain)],
        preexec_fn=without_roots_privilege,
        capture_output=True,
        text=True,
    )
    plain.chmod(0o755)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"{plain}: cannot write there (Permission denied)" in done.stderr
    assert len(list(plain.iterdir())) == 2


def test_a_parquet_file_about_other_samples_is_named(plain: Path) -> None:
    pq.write_table(pa.table({"key": ["other"]}), plain / "train-001.parquet")
    with pytest.raises(UserError, match=r"train-001\.parquet lacks samples of the tar"):
        index(plain, machine=HERE)
    assert pq.read_table(plain / "train-001.parquet").column_names == ["key"]
