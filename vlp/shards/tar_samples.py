"""The samples of a tar in webdataset's convention: members that share the name up to its first dot."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vlp.core.messages import one_line
from vlp.shards.index_schema import INDEX_SCHEMA
from vlp.shards.outcome import SUCCESS
from vlp.shards.tar import is_safe_name

MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""Key and extension of a member: the name up to the first dot, and what follows, as webdataset splits it."""
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
NO_IMAGE, NOT_AN_IMAGE, BROKEN_TAR = "no_image", "not_an_image", "broken_tar"
JSON = "json"
REPEATED_KEY, UNSAFE_NAME = "repeated_key", "unsafe_name"
OF_TARS = (NO_IMAGE, NOT_AN_IMAGE, REPEATED_KEY, UNSAFE_NAME)
"""Outcomes that the members of a tar show."""


class Endings(NamedTuple):
    """Which members of a sample are what, by what follows the first dot of their names, in small letters."""

    image: tuple[str, ...] = IMAGES
    caption: tuple[str, ...] = ("txt",)
    """Of files whose text is a caption; others are read from a .json, with its other values as columns."""

    @classmethod
    def of(cls, counts: Mapping[str, Sequence[str]] | None) -> "Endings":
        """Those that the counts of a shard name, or the usual ones."""
        return cls(**{name: tuple(given) for name, given in (counts or {}).items()})


USUAL = Endings()


class TarSamples(NamedTuple):
    """What a tar holds."""

    rows: dict[str, dict[str, Any]]
    """Key -> columns of the index, as far as the tar says something about them; others are in `more`."""
    problem: str | None
    """Why the tar cannot be read to its end, if so."""


def read_samples(tar: Path, endings: Endings = USUAL) -> TarSamples:
    """Every sample up to the end of the tar, or to where it breaks; the one it breaks in is not a success."""
    rows: dict[str, dict[str, Any]] = {}
    with tar.open("rb") as stream:
        problem = _read_members(stream, rows, endings)
    for row in rows.values():
        if "status" not in row:
            _judge(row, endings)
        row.setdefault("caption", next(iter(row["captions"]), None))
    if problem and rows:
        rows[next(reversed(rows))] |= {"status": BROKEN_TAR, "error_message": None}
    return TarSamples(rows, problem)


def split_name(name: str) -> tuple[str, str] | None:
    """Key and lower-case extension of a member; None if it belongs to no sample."""
    match = MEMBER.fullmatch(name)
    if match is None:
        return None
    return match[1].encode("utf-8", "surrogateescape").decode("utf-8", "replace"), match[2].lower()


def _read_members(stream: Any, rows: dict[str, dict[str, Any]], endings: Endings) -> str | None:
    """Fill `rows`; why the tar cannot be read to its end."""
    try:
        # Not transparently decompressed: offsets are those of the file.
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = split_name(member.name)
                if member.isfile() and name:
                    row = rows.setdefault(name[0], {"key": name[0], "captions": [], "endings": set()})
                    if refusal := _refusal(row, name[1], member, endings):
                        row["status"], row["error_message"] = refusal
                    else:
                        _add_member(row, name[1], archive, member, endings)
                    row["endings"].add(name[1])
            stream.seek(archive.offset)
            # Python's reader takes a damaged header for the end.
            return f"no member at byte {archive.offset:,}" if stream.read(512).strip(b"\0") else None
    except (tarfile.TarError, OSError) as error:
        return one_line(error)


def _refusal(
    row: dict[str, Any], extension: str, member: tarfile.TarInfo, endings: Endings
) -> tuple[str, str] | None:
    """Outcome and reason where a member shows that nobody can tell the sample, or may unpack it."""
    if not is_safe_name(member.name):
        return UNSAFE_NAME, "its name leads out of the folder that it is unpacked into"
    if extension in row["endings"]:
        return REPEATED_KEY, f"several members are {member.name}"
    if extension in endings.image and (others := row["endings"].intersection(endings.image)):
        return REPEATED_KEY, f"it has several images: {', '.join(sorted({extension, *others}))}"
    return None


def _add_member(
    row: dict[str, Any], extension: str, archive: tarfile.TarFile, member: tarfile.TarInfo, endings: Endings
) -> None:
    if extension not in (*endings.image, *endings.caption, JSON):
        return
    file = archive.extractfile(member)
    content = file.read() if file else b""
    if extension in endings.image:
        row |= {"image_offset": member.offset_data, "image_size": member.size} | _describe_image(content)
        return
    text = content.decode("utf-8", errors="replace")
    if extension == JSON:
        _add_json(row, text)
    elif text.strip():
        row["caption"] = text.strip()
        _add_captions(row, [text.strip()])


def _add_json(row: dict[str, Any], text: str) -> None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    captions = content.get("captions") or content.get("caption")
    captions = captions if isinstance(captions, list) else [captions]
    if all(caption is None or isinstance(caption, str) for caption in captions):
        _add_captions(row, [caption for caption in captions if caption])
    if isinstance(content.get("url"), str):
        row["url"] = content["url"]
    row["more"] = {name: value for name, value in content.items() if name not in INDEX_SCHEMA.names}


def _add_captions(row: dict[str, Any], captions: list[str]) -> None:
    """Keep the longer list: all captions are in the .json of our own shards, one of them in the .txt."""
    if len(captions) > len(row["captions"]):
        row["captions"] = captions


def _describe_image(encoded: bytes) -> dict[str, Any]:
    """Size and checksum; only the header is decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
            if image.mode in ("I", "F"):
                mode = f"pixels of the mode {image.mode}, of which none is known to be black or white"
                return {"error_message": mode}
    except Exception as error:  # a parser of damaged bytes may raise anything
        return {"error_message": f"{type(error).__name__}: not an image of a known format"}
    size = {"width": width, "height": height, "original_width": width, "original_height": height}
    return size | {"sha256": hashlib.sha256(encoded).hexdigest()}


def _judge(row: dict[str, Any], endings: Endings) -> None:
    """Set the outcome of a sample whose members are all known."""
    if "image_offset" in row:
        row["status"] = SUCCESS if "width" in row else NOT_AN_IMAGE
        return
    row["status"] = NO_IMAGE
    row["error_message"] = (
        f"of its endings {', '.join(sorted(row['endings']))} none is that of an image, "
        f"which are {', '.join(endings.image)}; image_endings names others"
    )
