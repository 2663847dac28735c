"""Every format of a URL list gives the same plan; no row stops it."""

import csv
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.errors import ConfigError, UserError
from pipelines.config.settings import Layers, build
from pipelines.ingest import delimited
from pipelines.ingest.download import plan
from pipelines.ingest.grouping import SCHEMA, group_by_url
from pipelines.ingest.lock import download_lock
from pipelines.ingest.patterns import expand_braces
from pipelines.ingest.plan import ShardPlan, read_urls, write_plan
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.url_list import Columns, InputFormat, has_types, list_files, read_url_list
from tests.servers.object_store import ObjectStore
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

ROWS = [
    ("http://x/a.jpg", "first, of a"),
    ("http://x/b.jpg", 'a "quoted"\ncaption on two lines'),
    ("http://x/a.jpg", "007"),
    ("http://x/c.jpg", ""),
    ("http://x/a.jpg", "third of a"),
    ("http://x/d.jpg", "über\t\N{SNOWMAN}"),
]


def naive_plan(rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    captions: dict[str, list[str]] = {}
    for url, caption in rows:
        captions.setdefault(url, []).extend([caption] if caption else [])
    return [{"url": url, "captions": texts} for url, texts in captions.items()]


def write(path: Path, rows: list[tuple[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({"n": range(len(rows)), "url": [r[0] for r in rows], "caption": [r[1] for r in rows]}),
            path,
        )
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"url": url, "caption": text}) + "\n" for url, text in rows))
    else:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("url", "caption"), *rows])
    return path


def read(path: Path, *, input_format: InputFormat = "auto", **columns: Any) -> list[dict[str, Any]]:
    """The plan's rows; without their digests, unless those are asked for."""
    given: dict[str, Any] = {"url": "url", "caption": "caption"}
    names = Columns(**(given | columns))
    rows = read_url_list(list_files(path, input_format), names, input_format=input_format)
    table = pa.concat_tables(group_by_url(rows, max_bytes=2**28))
    return (table if names.digest else table.drop_columns(["digest"])).to_pylist()


def rows_of(suffix: str) -> list[tuple[str, str]]:
    """The rows, as a format holds them: in a TSV each is one line."""
    return [(url, " ".join(text.split())) for url, text in ROWS] if suffix == "tsv" else ROWS


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_plan_of_a_plain_loop(suffix: str, tmp_path: Path) -> None:
    rows = rows_of(suffix)
    assert read(write(tmp_path / f"urls.{suffix}", rows)) == naive_plan(rows)


def test_a_quotation_mark_in_a_tsv_is_a_letter(tmp_path: Path) -> None:
    """Neither the rows after it nor other marks are lost; fields that a writer quoted are as they were."""
    captions = [f"caption {i}" for i in range(30)]
    captions[3], captions[8], captions[20] = '"Hello world', 'end"', '5" x 7"'
    lines = [f"http://x/{i}\t{text}" for i, text in enumerate(captions)]
    (tmp_path / "urls.tsv").write_text("\n".join(["url\tcaption", *lines, '"http://x/30"\t"a ""b"" c"', ""]))
    found = read(tmp_path / "urls.tsv")
    assert [row["captions"] for row in found] == [[text] for text in [*captions, 'a "b" c']]
    assert found[-1]["url"] == "http://x/30"


@pytest.mark.parametrize(
    "rows",
    [
        'a,"Hello world\nb,two\n',
        'a,"Hello world\nb,two\nc,"three\nd,four\n',
        'a,"He said \\"hello\\", twice"\nb,two\n',
        'a,"Hello" world\nb,two\n',
    ],
)
def test_a_quotation_mark_in_a_csv_that_would_hide_rows_is_named_with_its_line(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "urls.csv").write_text("url,caption\nx,first\n" + rows)
    for chunk in (2**24, 16):  # whatever is read at a time
        monkeypatch.setattr(delimited, "CHUNK", chunk)
        with pytest.raises(UserError, match=r"line 3: .*quotation mark"):
            read(tmp_path / "urls.csv")


@pytest.mark.parametrize("chunk", [30, 64, 2**24])
def test_quotes_of_a_csv_that_is_right_are_no_obstacle(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "CHUNK", chunk)
    text = '\ufeff"url",caption\r\na,"x ""y""\r\nz"\r\nb,5" x 7"\r\n"c",""\r\nd,"""q"""'
    (tmp_path / "urls.csv").write_bytes(text.encode())
    captions = [row["captions"] for row in read(tmp_path / "urls.csv")]
    assert captions == [['x "y"\r\nz'], ['5" x 7"'], [], ['"q"']]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_url_with_a_caption_gets_no_empty_one_beside_it(suffix: str, tmp_path: Path) -> None:
    rows: list[tuple[str, Any]] = [("a", None), ("a", "1"), ("b", ""), ("a", ""), ("b", None)]
    expected = [{"url": "a", "captions": ["1"]}, {"url": "b", "captions": []}]
    assert read(write(tmp_path / f"urls.{suffix}", rows)) == expected


@pytest.mark.parametrize("value", [{"raw": "a cat"}, [{"raw": "a cat"}], [["a cat"]], b"a cat"])
def test_captions_that_are_no_texts_are_refused_with_what_they_are(value: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["a"], "caption": [value]}), tmp_path / "urls.parquet")
    with pytest.raises(UserError, match=r"column 'caption' holds .* in place of texts") as raised:
        read(tmp_path / "urls.parquet")
    assert "\n" not in str(raised.value)


def test_a_folder_is_read_in_order_of_names_whatever_types_its_files_have(tmp_path: Path) -> None:
    folder = tmp_path / "urls"
    write(folder / "1.csv", ROWS[:2])
    write(folder / "2.csv", ROWS[2:3])  # a number, if it were alone
    write(folder / "3.jsonl", ROWS[3:5])
    write(folder / "4.parquet", ROWS[5:])
    (folder / "_SUCCESS").touch()
    assert read(folder) == naive_plan(ROWS)
    assert read(folder, input_format="jsonl") == naive_plan(ROWS[3:5])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_lists_of_captions_are_flattened_in_order(suffix: str, tmp_path: Path) -> None:
    rows = [("a", ["1", "2"]), ("b", ["3"]), ("a", ["4", None])]
    expected = [{"url": "a", "captions": ["1", "2", "4"]}, {"url": "b", "captions": ["3"]}]
    assert read(write(tmp_path / f"urls.{suffix}", rows)) == expected


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("nothing", [None, []])
def test_a_url_may_have_no_caption(suffix: str, nothing: Any, tmp_path: Path) -> None:
    rows = [("a", ["1"]), ("b", nothing), ("c", ["2"])]
    captions = [row["captions"] for row in read(write(tmp_path / f"urls.{suffix}", rows))]
    assert captions == [["1"], [], ["2"]]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_row_without_url_is_left_out(suffix: str, tmp_path: Path) -> None:
    rows: list[tuple[Any, str]] = [("a", "1"), (None, "2"), ("b", "3")]
    assert [row["url"] for row in read(write(tmp_path / f"urls.{suffix}", rows))] == ["a", "b"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_list_may_have_no_column_of_captions(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"urls.{suffix}", [("a", "1"), ("b", "2"), ("a", "3")])
    assert read(file, caption=None) == [{"url": "a", "captions": []}, {"url": "b", "captions": []}]
    with pytest.raises(UserError, match=r"no column 'text'.*caption_col=null"):
        read(file, caption="text")


KEPT = [
    {"url": "a", "caption": "1", "similarity": 0.25, "id": 3, "code": "007", "is_safe": True},
    {"url": "b", "caption": "2", "similarity": 1.0, "id": 4, "code": "08", "is_safe": False},
    {"url": "a", "caption": "3", "similarity": 0.5, "id": 5, "code": "9", "is_safe": None},
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_further_columns_are_kept_with_their_types_from_the_first_row_of_a_url(
    suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"urls.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(KEPT), file)
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in KEPT))
    else:
        mark = "," if suffix == "csv" else "\t"
        lines = [mark.join("" if value is None else str(value) for value in row.values()) for row in KEPT]
        file.write_text("\n".join([mark.join(KEPT[0]), *lines]) + "\n")
    names = ("similarity", "id", "code", "is_safe")
    columns = Columns(url="url", caption="caption", additional=names)
    rows = read_url_list([file], columns, input_format="auto")
    guess = not has_types([file], "auto")
    found = pa.concat_tables(group_by_url(rows, max_bytes=2**28, guess_types=guess)).to_pylist()
    assert [row["more"] for row in found] == [{name: row[name] for name in names} for row in KEPT[:2]]
    assert [row["captions"] for row in found] == [["1", "3"], ["2"]]
    missing = Columns(url="url", caption="caption", additional=("similarty",))
    with pytest.raises(UserError, match=r"no column 'similarty'; did you mean similarity\?"):
        list(read_url_list([file], missing, input_format="auto"))


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    file = tmp_path / "urls.csv"
    file.write_text("TEXT,caption,link\nx,no,a\n")
    assert read(file, url="link", caption="TEXT") == [{"url": "a", "captions": ["x"]}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("urls.csv", "link,caption\na,b\n", "no column 'url'"),
        ("urls.csv", "url,captions\na,b\n", "'caption'; did you mean captions?"),
        ("urls.csv", "url,caption\n", "lists no URL"),
        ("urls.csv", "", "is not a valid csv file"),
        ("urls.csv", "url,caption\na,b,c\n", "is not a valid csv file"),
        ("urls.jsonl", '{"url": "a"', "is not a valid jsonl file"),
        ("urls.parquet", "url", "is not a valid parquet file"),
        ("urls.list", "a", "unknown format '.list'; set input_format to one of csv, tsv, jsonl"),
        ("urls.gz", "a", "unknown format '.gz'; set input_format to one of csv"),
        ("urls.csv.gz", "url,caption", "is not a valid csv file"),
        ("urls.jsonl.gz", "{}", "is not a valid jsonl file"),
        ("urls.csv", "url;caption\na;b, c\n", "by ';', csv files do not; write it with ','"),
        ("urls.csv", "url\tcaption\na\tb, c\n", "by '\\\\t', csv files do not; set input_format=tsv"),
        ("urls.tsv", "url,caption\na,b\n", "by ',', tsv files do not; set input_format=csv"),
        ("urls.jsonl", '{"image": "a", "caption": "b"}', "no column 'url'; if .* set image_col=image"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_list_that_is_compressed_gives_the_same_plan(suffix: str, tmp_path: Path) -> None:
    rows = rows_of(suffix)
    file = write(tmp_path / f"urls.{suffix}", rows)
    (tmp_path / "lists").mkdir()
    packed = tmp_path / "lists" / f"{file.name}.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read(packed) == read(tmp_path / "lists") == naive_plan(rows)
    unnamed = packed.rename(tmp_path / "urls.gz")
    assert read(unnamed, input_format=cast(InputFormat, suffix)) == naive_plan(rows)


@pytest.mark.parametrize("name", ["urls.txt", "urls.txt.gz"])
def test_a_list_of_addresses_alone_has_one_per_line(name: str, tmp_path: Path) -> None:
    text = b"http://x/a b.jpg\r\nhttp://x/b,c.jpg\n\nhttp://x/d.jpg"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    urls = ["http://x/a b.jpg", "http://x/b,c.jpg", "http://x/d.jpg"]
    expected = [{"url": url, "captions": []} for url in urls]
    assert read(tmp_path / name) == read(tmp_path, input_format="txt") == expected


def test_a_note_beside_the_lists_of_a_folder_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "urls.csv", ROWS)
    (tmp_path / "README.txt").write_text("not an address")
    assert read(tmp_path) == naive_plan(ROWS)


def test_a_pattern_names_the_files_that_a_shell_would(tmp_path: Path) -> None:
    for name in ("00", "01", "02", "10"):
        write(tmp_path / f"part-{name}.csv", [(name, "x")])
    write(tmp_path / "other" / "part-00.csv", [("other", "x")])
    patterns = {
        "part-{00..02}.csv": ["00", "01", "02"],
        "part-{10,00}.csv": ["10", "00"],
        "part-0?.csv": ["00", "01", "02"],
        "*.csv": ["00", "01", "02", "10"],
        "{.,other}/part-{00..00}.csv": ["00", "other"],
    }
    for pattern, expected in patterns.items():
        assert [row["url"] for row in read(tmp_path / pattern)] == expected
    write(tmp_path / "part-{00..02}.csv", [("itself", "x")])
    assert read(tmp_path / "part-{00..02}.csv") == [{"url": "itself", "captions": ["x"]}]
    for pattern, missing in {"part-{00..03}.csv": "part-03.csv", "*.tsv": "*.tsv"}.items():
        with pytest.raises(UserError, match="there is no such file") as raised:
            list_files(tmp_path / pattern, "auto")
        assert f"names {tmp_path / missing}" in str(raised.value)


def test_braces_are_expanded_as_by_a_shell() -> None:
    assert expand_braces("s3://x/{08..10}.tar") == ["s3://x/08.tar", "s3://x/09.tar", "s3://x/10.tar"]
    assert expand_braces("{9..10}-{a,b}") == ["9-a", "9-b", "10-a", "10-b"]
    assert expand_braces("{x}{}{a..b}") == ["{x}{}{a..b}"]


@pytest.fixture
def lists(object_store: ObjectStore, tmp_path: Path) -> Folder:
    """A folder of an object store with two lists and a note."""
    folder = object_store.bucket()
    for i in range(2):
        file = write(tmp_path / f"{i}.csv", [(f"u{i}", f"{i}")])
        folder.write(file.name, file.read_bytes())
    folder.write("README.txt", b"no list")
    return folder


def remote_plan(url_list: Folder, output: Path, **settings: Any) -> list[str]:
    """The URLs of a plan that is made of a list elsewhere."""
    made = plan(DownloadConfig(url_list=url_list, **settings), output)
    return [row["url"] for name in made.shards for row in read_urls(open_folder(output), name)]


def test_lists_in_an_object_store_are_read_as_those_of_this_machine(
    lists: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    names = {"file": lists / "1.csv", "folder": lists, "pattern": lists / "{0..1}.csv"}
    found = {kind: remote_plan(place, tmp_path / kind) for kind, place in names.items()}
    assert found == {"file": ["u1"], "folder": ["u0", "u1"], "pattern": ["u0", "u1"]}
    local = plan(DownloadConfig(url_list=open_folder(tmp_path / "1.csv")), tmp_path / "local")
    assert local.identity == plan(DownloadConfig(url_list=lists / "1.csv"), tmp_path / "file").identity
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_wrong_with_a_list_elsewhere_is_one_line_that_names_it(lists: Folder, tmp_path: Path) -> None:
    lists.write("2.csv", b"link,caption\na,b\n")
    cases: list[tuple[Folder, dict[str, Any], str]] = [
        (lists / "2.csv", {}, f"{lists / '2.csv'} has no column 'url'"),
        (lists / "3.csv", {}, f"no such file, nor a folder with lists: {lists / '3.csv'}"),
        (lists / "{0..3}.csv", {}, f"no such file, nor a folder with lists: {lists / '3.csv'}"),
        (lists / "0.csv", {"image_col": "image"}, "images are read from files of this machine"),
    ]
    for place, settings, message in cases:
        with pytest.raises(UserError) as raised:
            remote_plan(place, tmp_path / "shards", **settings)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
    layers = Layers().set({"url_list": "https://x.org/urls.csv"}, "command line")
    with pytest.raises(ConfigError, match=r"url_list: nothing reads https:// .*; valid: s3://"):
        build(DownloadConfig, layers)
    layers = Layers().set({"url_list": str(lists / "0.csv")}, "command line")
    assert build(DownloadConfig, layers).url_list == lists / "0.csv"


def test_a_missing_file_or_a_folder_without_lists_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            list_files(path, "auto")


def test_a_plan_holds_every_url_once_in_order_and_nothing_of_an_unfinished_plan(tmp_path: Path) -> None:
    rows = [(str(i), "x") for i in range(10)]
    file = write(tmp_path / "urls.csv", rows)
    table = read_url_list([file], Columns(url="url", caption="caption"), input_format="auto")
    with download_lock(open_folder(tmp_path)):
        (tmp_path / "plan" / "00007.arrow").write_bytes(b"of a longer list, before it was killed")
        plan = write_plan(table, open_folder(tmp_path), identity="x", shard_size=4)
    assert plan == ShardPlan.read(open_folder(tmp_path))
    assert plan.shards == ["00000", "00001", "00002"] == plan.missing(open_folder(tmp_path))
    assert plan.num_urls == 10
    parts = [read_urls(open_folder(tmp_path), name) for name in plan.shards]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [row["url"] for part in parts for row in part] == [str(i) for i in range(10)]
    assert {path.name for path in (tmp_path / "plan").glob("*.arrow")} == {f"0000{i}.arrow" for i in range(3)}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_url_has_the_digest_of_its_first_row(suffix: str, tmp_path: Path) -> None:
    rows = [("a", "0a"), ("b", "0b"), ("a", "0c")]  # the second column serves as caption and as digest
    found = read(write(tmp_path / f"urls.{suffix}", rows), digest="caption")
    assert [(row["url"], row["digest"]) for row in found] == [("a", "0a"), ("b", "0b")]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_list_larger_than_what_is_parsed_at_a_time_gives_the_same_plan(suffix: str, tmp_path: Path) -> None:
    """Captions, in a CSV of two lines, cross the boundaries of the parser's blocks of one MiB; URLs recur."""
    comma = ",\n" if suffix == "csv" else ","
    rows = [(f"http://x/{i * 7919 % 500}.jpg", f"caption {i}{comma}{'word ' * 200}") for i in range(3000)]
    file = write(tmp_path / f"urls.{suffix}", rows)
    assert file.stat().st_size > 2**21
    assert read(file) == naive_plan(rows)


@pytest.mark.parametrize("part", [1, 3, 1000])
def test_a_url_has_all_its_captions_whatever_is_read_at_a_time(part: int, tmp_path: Path) -> None:
    rows = [(f"http://x/{i % 7}", f"{i}") for i in range(100)]
    texts = [pa.array([url for url, _ in rows]), pa.array([[caption] for _, caption in rows])]
    table = pa.table([*texts, pa.nulls(100)], SCHEMA.names).cast(SCHEMA)
    tables = (table.slice(start, part) for start in range(0, 100, part))
    grouped = pa.concat_tables(group_by_url(tables, max_bytes=2**28)).drop_columns(["digest"])
    assert grouped.to_pylist() == naive_plan(rows)


def test_grouping_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parts = group_by_url([SCHEMA.empty_table()], max_bytes=2**28)
    assert list(parts) == []
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_the_grouping_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # where nobody can write
    with pytest.raises(UserError, match="TMPDIR"):
        list(group_by_url([SCHEMA.empty_table()], max_bytes=2**28))
