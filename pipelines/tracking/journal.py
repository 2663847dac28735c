"""Everything a run wants tracked, appended to a JSON-lines file in the run's own folder.

Writing needs no tracking server and nothing but the standard library, so training workers only ever append
here; `pipelines.tracking.store` delivers the records later. A record counts once its newline is
written, so a process may be killed at any point.
"""

import errno
import json
import os
import posixpath
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelines.config.errors import is_terminated
from pipelines.config.secrets import without_secrets
from vlp.core.messages import one_line
from vlp.shards.published import put
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.whole import writing

FILE_NAME = "journal.jsonl"
DELIVERED_NAME = "delivered.json"
PICTURES = "pictures"
"""Folder beside a journal of what it shows, so that both are wherever one is."""
LONGEST_KEY = 250  # in MLflow


class Record(NamedTuple):
    """One line of a journal; `end` is the byte offset behind it, `kind` is "unreadable" for a torn line."""

    kind: str
    time: int
    """Milliseconds since the epoch."""
    fields: dict[str, Any]
    end: int


@dataclass(frozen=True)
class Journal:
    """The journal of one run: a handle on the folder, which may be pickled and sent to any process.

    Several processes of one machine may append at the same time. An append that fails (a full disk) raises
    `OSError`. Passwords and tokens in texts are hidden.
    """

    folder: Path

    def begin(self, *, name: str, parent: Path | None = None, tags: Mapping[str, str]) -> None:
        """Start the run, or resume it where the folder already holds a journal.

        `parent` is the folder of the parent run's journal, below the same root of delivery. A resumed run
        keeps its identity, name and parent.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.first("begin"):
            self._append("resumed", tags=_texts(tags))
            return
        self._append(
            "begin",
            uuid=uuid.uuid4().hex,
            name=without_secrets(name),
            parent=self._relative(parent) if parent else None,
            tags=_texts(tags),
        )

    def params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run by dotted key, kept as text.

        A setting keeps its first value, as no tracking server changes one; what it is for a run that goes on,
        such as on another machine, becomes the label `now.KEY`.
        """
        texts, known = _texts(params), self._known_params()
        if new := {key: value for key, value in texts.items() if key not in known}:
            self._append("params", params=new)
        if changed := {k: v for k, v in texts.items() if known.get(k, v) != v}:
            self.tags({f"now.{key}": value for key, value in changed.items()})

    def metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Numbers (also 0-d tensors) at a step.

        A key's steps must increase: a resumed run repeats some, and those are not delivered again.
        """
        self._append("metrics", metrics={key: float(value) for key, value in metrics.items()}, step=int(step))

    def model(self, folder: Path, *, files: Sequence[str], step: int, texts: bool) -> None:
        """A checkpoint, as a model of its step that can be loaded; called after the run and its folder.

        Args:
            files: those of the folder that belong to it.
            texts: whether it also has embeddings of texts.
        """
        fields = {"files": list(files), "step": int(step), "texts": texts}
        self._append("model", path=self._relative(folder), **fields)

    def model_metrics(
        self, metrics: Mapping[str, float], *, step: int, dataset: Mapping[str, str] | None = None
    ) -> None:
        """Numbers of the model of a step, where there is one.

        Args:
            dataset: `name` and `digest` of what they were measured on.
        """
        numbers = {key: float(value) for key, value in metrics.items()}
        self._append("model_metrics", metrics=numbers, step=int(step), dataset=dict(dataset or {}))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Labels of the run; a later value replaces an earlier one."""
        self._append("tags", tags=_texts(tags))

    def describe(self, text: str, *, runs: Mapping[str, Path], columns: Sequence[str] = ()) -> None:
        """What the page of the run says, in Markdown; a later description replaces an earlier one.

        Args:
            runs: folders of other runs' journals by name; `[name]` in the text links to each, `[all runs]` to
                the table of all.
            columns: metrics that this table shows.
        """
        folders = {name: self._relative(folder) for name, folder in runs.items()}
        self._append("description", text=without_secrets(text), runs=folders, columns=list(columns))

    def artifact(self, path: Path, *, folder: str = "") -> None:
        """A file or directory, shown under its own name inside the artifact folder `folder`.

        It is read at delivery, so it has to stay where and as it is. Raises `FileNotFoundError` if it is not
        there.
        """
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such artifact", str(path))
        self._append("artifact", path=self._relative(path), folder=folder)

    def image(self, key: str, path: Path, *, step: int = 0) -> None:
        """A picture of a step, which is shown among those of its key; else as an artifact."""
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such picture", str(path))
        self._append("image", key=key, path=self._relative(path), step=int(step))

    def dataset(
        self,
        *,
        name: str,
        digest: str,
        source: str,
        context: str,
        profile: Mapping[str, Any],
        columns: Mapping[str, str] | None = None,
    ) -> None:
        """An input of the run: where it came from, the digest of its content, and what it is used for.

        Args:
            profile: what is to be said of it.
            columns: type of each.
        """
        texts = _texts({"name": name, "digest": digest, "source": source, "context": context})
        self._append("dataset", **texts, profile=dict(profile), columns=dict(columns or {}))

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close the run; `begin` opens it again."""
        self._append("end", status=status)

    def read(self, offset: int = 0) -> Iterator[Record]:
        """Whole records from a byte offset on; what a writer has not finished is left for the next reader."""
        path = self.folder / FILE_NAME
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                if line.strip():
                    yield _record(line, offset)

    def first(self, kind: str) -> Record | None:
        """The first record of a kind."""
        return next((record for record in self.read() if record.kind == kind), None)

    def seconds_of_work(self) -> float:
        """How long processes have worked on the run, from each beginning to the last that was heard of it."""
        milliseconds = begun = last = 0
        for record in self.read():
            if record.kind == "unreadable":
                continue
            if record.kind in ("begin", "resumed"):
                milliseconds, begun = milliseconds + last - begun, record.time
            last = record.time
        return (milliseconds + last - begun) / 1000

    def copy_to(self, there: Folder) -> None:
        """Copy the journal to another place, unless a longer one is there, and before it its pictures."""
        pictures, shown = self.folder / PICTURES, there / PICTURES
        copied = shown.names()
        for picture in pictures.iterdir() if pictures.is_dir() else ():
            if picture.name not in copied:
                put(picture, shown)
        file = self.folder / FILE_NAME
        size = there.size(FILE_NAME) if FILE_NAME in there.names() else 0
        if file.is_file() and file.stat().st_size > size:
            put(file, there)

    def locate(self, path: str) -> Path:
        """The absolute path of a `parent` or artifact, which records hold relative to the folder."""
        return Path(os.path.normpath(self.folder.absolute() / path))

    def _known_params(self) -> dict[str, str]:
        records = (record.fields["params"] for record in self.read() if record.kind == "params")
        return {key: value for params in records for key, value in params.items()}

    def _append(self, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "time": time.time_ns() // 1_000_000, **fields}
        self.write_line(json.dumps(record, default=str).encode() + b"\n")

    def write_line(self, line: bytes) -> None:
        """A record as this class writes it, perhaps in another process."""
        file = os.open(self.folder / FILE_NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # closes the line of a writer that was killed; an empty line is harmless
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, "no space left for the journal", str(self.folder / FILE_NAME))
        finally:
            os.close(file)

    def _relative(self, path: Path) -> str:
        """Relative, so that a tree of runs may be moved, or mounted elsewhere, before it is delivered."""
        return os.path.relpath(path.absolute(), self.folder.absolute())


@dataclass
class Delivered:
    """How far a journal has been delivered to the tracking server at `uri`; kept beside the journal."""

    uri: str
    """Kept without its password."""
    run_id: str = ""
    """Empty before the run exists there."""
    offset: int = 0
    """Bytes of the journal that are delivered."""
    last_step: dict[str, int] = field(default_factory=dict)
    """By metric, or images/ and the key of a picture: the last step delivered."""
    experiment_id: str = ""
    """Of the experiment that has the run."""

    def __post_init__(self) -> None:
        self.uri = without_secrets(self.uri)

    @classmethod
    def load(cls, folder: Path, uri: str) -> "Delivered":
        """What was saved here; nothing, if that was for another server or a power failure damaged it."""
        try:
            saved = cls(**json.loads((folder / DELIVERED_NAME).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return cls(uri)  # delivering twice changes nothing
        return saved if saved.uri == without_secrets(uri) else cls(uri)

    def save(self, folder: Path) -> None:
        """Replace what was saved, as a whole or not at all."""
        with writing(folder / DELIVERED_NAME) as stream:
            stream.write(json.dumps(asdict(self)).encode())


def is_new(key: str, step: int, last_step: dict[str, int]) -> bool:
    """Whether a key has no such step yet: a resumed run repeats some. `last_step` is brought up to date."""
    if key in last_step and step <= last_step[key]:
        return False
    last_step[key] = step
    return True


def tracked_key(key: str) -> str:
    """The nearest name that MLflow accepts: `recall@1` is `recall_at_1`."""
    key = re.sub(r"[^/\w.\- :]", "_", key.replace("@", "_at_"))[:LONGEST_KEY]
    return posixpath.normpath(key).lstrip("./") or "_"


@contextmanager
def ending(journal: Journal) -> Iterator[None]:
    """Close a run afterwards: FINISHED, or FAILED or KILLED where an exception passes; and say why."""
    try:
        yield
    except BaseException as error:
        is_asked = isinstance(error, KeyboardInterrupt)
        journal.tags({"stop_reason": _asked_to_stop(error) if is_asked else one_line(error)})
        journal.end("KILLED" if is_asked else "FAILED")
        raise
    journal.tags({"stop_reason": "finished"})
    journal.end("FINISHED")


def _asked_to_stop(error: BaseException) -> str:
    return "SIGTERM" if is_terminated(error) else "interrupted"


def _record(line: bytes, end: int) -> Record:
    try:
        fields = json.loads(line)
        return Record(fields.pop("kind"), fields.pop("time"), fields, end)
    except (ValueError, KeyError, AttributeError):
        return Record("unreadable", 0, {"line": line[:80].decode(errors="replace")}, end)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: without_secrets(value) for key, value in values.items()}
