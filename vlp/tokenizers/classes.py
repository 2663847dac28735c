"""Captions that are names of classes: each is one token, the index of its class."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from vlp.core.config import AtLeast
from vlp.core.messages import some_of
from vlp.tokenizers.token_rows import TokenRows
from vlp.tokenizers.tokenizer import TOKENIZERS, Tokenizer, TokenizerConfig, read_vocabulary


@TOKENIZERS.register
@dataclass(frozen=True, kw_only=True)
class ClassesConfig(TokenizerConfig):
    """Settings of the names of classes."""

    name: Literal["classes"] = "classes"
    path: Path
    """File of the names in the order of their indices: a text file, one a line, or JSON with `classes`, such
    as the meta.json of an evaluation set."""
    context_length: Annotated[int, AtLeast(3)] = 3
    """Tokens of a caption, start- and end-of-text included: always 3."""

    names_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_length != 3:
            raise ValueError(
                f"context_length must be 3 where captions name classes, got {self.context_length}"
            )
        if self.stop_words == "drop":
            raise ValueError("stop_words must be keep: names of classes are read whole, got drop")

    def build(self) -> "Classes":
        return Classes(self)


class Classes(Tokenizer):
    """Ids are indices of classes."""

    def __init__(self, config: ClassesConfig) -> None:
        self._path = config.path
        self.classes = read_classes(config.path)
        """Their names, in the order of their ids."""
        super().__init__(config, self.classes)
        self._ids = {name: i for i, name in enumerate(self.classes)}
        self.frame = (len(self.classes), len(self.classes) + 1)
        self.special_tokens = self.frame
        self.vocab_size = len(self.classes) + 2

    def _rows(self, captions: Sequence[str]) -> TokenRows:
        names = [caption.strip() for caption in captions]
        if unknown := [name for name in dict.fromkeys(names) if name not in self._ids]:
            said = f"{some_of(list(map(repr, unknown)))} {'are' if len(unknown) > 1 else 'is'}"
            raise ValueError(f"{said} none of the {len(self.classes)} classes of {self._path}")
        return TokenRows.of([[self._ids[name]] for name in names])

    def _name(self, token_id: int) -> str:
        return (*self.classes, "<start_of_text>", "<end_of_text>")[token_id]


def read_classes(file: Path) -> list[str]:
    """The names of classes in a file, in the order of their indices.

    Raises:
        ValueError: there is none, or a name is empty or there twice; names the file.
    """
    text = read_vocabulary(file).decode()
    names = _of_json(text, file) if file.suffix == ".json" else text.splitlines()
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise ValueError(f"{file} needs a name or more of classes, none of them empty")
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{file} has the class {repeated[0]!r} twice")
    return names


def _of_json(text: str, file: Path) -> list[str]:
    try:
        names = json.loads(text)["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not name classes under `classes`") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file} does not list the names of classes under `classes`")
    return names
