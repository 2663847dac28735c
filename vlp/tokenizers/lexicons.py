"""From the forms of a word to its lemma: `dogs` and `dog` name one class."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlp.core.config import StrictConfig
from vlp.core.registry import Registry
from vlp.tokenizers.tokenizer import read_vocabulary

LEXICONS = Registry()
Lemma = Callable[[str], str | None]

IRREGULAR = {
    **{
        f"{stem}men": f"{stem}man"
        for stem in ("", "wo", "fire", "police", "snow", "fisher", "sales", "gentle")
    },
    **{
        f"{stem}ves": f"{stem}f"
        for stem in ("lea", "wol", "shel", "loa", "cal", "hal", "scar", "hoo", "thie")
    },
    **{f"{stem}ves": f"{stem}fe" for stem in ("kni", "wi", "li")},
    **{
        "children": "child",
        "feet": "foot",
        "teeth": "tooth",
        "geese": "goose",
        "mice": "mouse",
        "oxen": "ox",
    },
    **{word: word for word in ("news", "series", "species", "always", "lens")},
}
ENDINGS = {"ses": "s", "xes": "x", "zes": "z", "ches": "ch", "shes": "sh", "ies": "y", "s": ""}
"""WordNet's rules for plurals, longest first."""
MIN_SHARE = 0.01
SHORTEST_LEMMA = 3


@dataclass(frozen=True, kw_only=True)
class Lexicon(ABC, StrictConfig):
    """Which lemma each word has."""

    name: str
    """Which lexicon it is."""

    @abstractmethod
    def build(self, counts: Mapping[str, int]) -> Lemma:
        """From a word to its lemma, or to None if it is not a label.

        Args:
            counts: how often each word occurs in the corpus.
        """


@LEXICONS.register
@dataclass(frozen=True, kw_only=True)
class PluralLexicon(Lexicon):
    """Plurals to singulars by rule, where the corpus knows the singular: `dogs` to `dog`, `bus` stays."""

    name: Literal["plurals"] = "plurals"

    def build(self, counts: Mapping[str, int]) -> Lemma:
        return lambda word: singular(word, counts)


@LEXICONS.register
@dataclass(frozen=True, kw_only=True)
class FileLexicon(Lexicon):
    """The words of a file, and no others; such as WordNet's nouns with their first synsets, as in CatLIP."""

    name: Literal["file"] = "file"
    path: Path
    """Lines of `word<TAB>lemma`."""

    def build(self, counts: Mapping[str, int]) -> Lemma:
        lines = read_vocabulary(self.path).decode().splitlines()
        pairs = [line.split("\t") for line in lines if line]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{self.path} is not a lexicon: it needs lines of `word<TAB>lemma`")
        return {word: lemma for word, lemma in pairs}.get


def singular(word: str, counts: Mapping[str, int]) -> str:
    """The singular of an English noun; any other word stays as it is.

    A rule holds where its result is a word of the corpus too, and no hundred times rarer, as a misspelling.
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    for ending, replacement in ENDINGS.items():
        if word.endswith(ending):
            lemma = word.removesuffix(ending) + replacement
            is_known = counts.get(lemma, 0) > MIN_SHARE * counts.get(word, 0)
            if is_known and len(lemma) >= SHORTEST_LEMMA:
                return lemma
    return word
