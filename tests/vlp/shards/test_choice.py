"""Conditions take the samples that a loop over the rows takes; a selection adds columns to them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlp.data.config import DataConfig, MixedShards
from vlp.data.loader import data_order, open_shards
from vlp.shards.choice import Where
from vlp.shards.contents import ShardsManifest
from vlp.shards.selection import SelectionManifest, selection_file, write_columns
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder


def select(shards: Path, place: Path, *, made: str = "0" * 16, name: str = "score") -> Folder:
    """A selection with one column: the number of the row, and nothing for every fourth."""
    manifest, number, folder = ShardsManifest.read(shards), 0, LocalFolder(place)
    for stats in manifest.shards:
        keys = pq.read_table(shards / f"{stats.name}.parquet")["key"]
        values = [None if i % 4 == 0 else float(i) for i in range(number, number + len(keys))]
        number += len(keys)
        column = pa.array(values, pa.float32())
        write_columns(folder, selection_file(stats, made), keys, {name: column})
    columns = {name: "float"}
    SelectionManifest(digest=made, shards=manifest.digest, made=made, columns=columns).write(folder)
    return folder


def images(read: ShardSet) -> list[bytes]:
    return [read.image_bytes(i) for i in range(len(read))]


def test_the_samples_are_those_of_a_loop_over_all_rows(shards, tmp_path: Path) -> None:
    scored = select(shards.folder, tmp_path / "scored")
    where = Where(("score>=5", "height != 66"), (scored,))
    expected, number = [], 0
    for stats in ShardsManifest.read(shards.folder).shards:
        for row in pq.read_table(shards.folder / f"{stats.name}.parquet").to_pylist():
            is_taken = number % 4 and number >= 5 and row["height"] != 66
            if row["status"] == "success" and is_taken:
                expected.append(row["captions"])
            number += 1
    read = ShardSet(shards.folder, wheres=[where])
    assert 0 < len(expected) < 16
    assert [read.captions(i) for i in range(len(read))] == expected
    assert images(read) == [shards.images[shards.captions.index(texts)] for texts in expected]
    known = ShardSet(shards.folder, wheres=[where], sizes=read.shard_sizes)
    sent = pickle.loads(pickle.dumps(read))
    assert images(known) == images(sent) == images(read)


def test_training_draws_from_what_each_set_of_a_mix_has_left(shards, tmp_path: Path) -> None:
    scored = select(shards.folder, tmp_path / "scored")
    place = LocalFolder(shards.folder)
    mixed = MixedShards(shards=place, share=0.5, where=("score>=8",), selections=(scored,))
    config = DataConfig(shards=place, where=("score<8",), selections=(scored,), mix=(mixed,))
    read = open_shards(config, captioned=True)
    (low, high) = (sum(sizes) for sizes in read.shard_sizes)
    assert low
    assert high
    assert low + high < 16
    order = data_order(read, config, seed=0, batch_size=4)
    drawn = np.array([draw.index for draw in order.draws(0, range(4))])
    assert (drawn < low).sum() == (drawn >= low).sum() == 2


def test_the_digest_is_of_what_is_taken(shards, tmp_path: Path) -> None:
    scored = select(shards.folder, tmp_path / "scored")
    other = select(shards.folder, tmp_path / "other", made="1" * 16)
    plain = ShardSet(shards.folder).digest
    wheres = [
        Where(),
        Where(("score>=5",), (scored,)),
        Where(("score>=6",), (scored,)),
        Where(("score>=5",), (other,)),
        Where(("height>50",)),
    ]
    digests = [ShardSet(shards.folder, wheres=[where]).digest for where in wheres]
    assert digests[0] == plain
    assert len(set(digests)) == 5
    assert ShardSet(shards.folder, wheres=[Where(("height>50",), (scored,))]).digest == digests[-1]


def test_a_column_of_a_selection_hides_that_of_the_index(shards, tmp_path: Path) -> None:
    widths = select(shards.folder, tmp_path / "widths", name="width")
    assert len(ShardSet(shards.folder, wheres=[Where(("width<=3",), (widths,))])) < 4
    assert len(ShardSet(shards.folder, wheres=[Where(("width>=80",))])) == 16


MISTAKES = {
    "column": (["scor>=1"], "the index has no column 'scor'; did you mean score?"),
    "value": (["score>=high"], "score is float, which 'high' is not"),
    "nothing": (["score>=99"], "holds no sample for which score>=99"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_in_a_condition_is_named(kind: str, shards, tmp_path: Path) -> None:
    conditions, message = MISTAKES[kind]
    scored = select(shards.folder, tmp_path / "scored")
    with pytest.raises(ValueError, match=message):
        ShardSet(shards.folder, wheres=[Where(tuple(conditions), (scored,))])


def test_a_selection_that_is_none_of_these_shards_is_refused(shards, tmp_path: Path) -> None:
    scored = select(shards.folder, tmp_path / "scored")

    def read(*folders: Folder) -> ShardSet:
        return ShardSet(shards.folder, wheres=[Where(("score>=5",), folders)])

    with pytest.raises(ValueError, match="both have a column 'score'; name one"):
        read(scored, select(shards.folder, tmp_path / "again", made="1" * 16))
    with pytest.raises(ValueError, match="is not a selection, or is not complete"):
        read(LocalFolder(shards.folder))
    manifest = json.loads((tmp_path / "scored/manifest.json").read_text())
    (tmp_path / "scored/manifest.json").write_text(json.dumps(manifest | {"shards": "others"}))
    with pytest.raises(ValueError, match="is a selection of other shards"):
        read(scored)
    (tmp_path / "scored/manifest.json").write_text(json.dumps(manifest))
    files = sorted((tmp_path / "scored").glob("*.parquet"))
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ValueError, match="is about other keys than the index of 0000"):
        read(scored)
    files[0].unlink()
    with pytest.raises(ValueError, match="run the command that made the selection again"):
        read(scored)


def test_settings_that_take_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"where: cannot read 'kept'; it is not a comparison"):
        DataConfig(where=("kept",))
    with pytest.raises(ValueError, match=r"selections: there takes no sample by itself; set where"):
        DataConfig(selections=(LocalFolder(Path("there")),))
