"""Captions as names of classes."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from vlp.tokenizers.classes import ClassesConfig

NAMES = ["cat", "polar bear", "Chihuahua"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("classes.txt", "\n".join(NAMES) + "\n"), ("meta.json", json.dumps({"classes": NAMES}))],
)
def test_a_caption_is_the_index_of_its_class(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    tokenizer = ClassesConfig(path=tmp_path / name).build()
    tokens, lengths = tokenizer.encode(["polar bear", "cat", " Chihuahua\n"])
    assert tokens[:, 1].tolist() == [1, 0, 2]
    assert lengths.tolist() == [3, 3, 3]
    assert torch.equal(tokens[:, [0, 2]], torch.tensor([[3, 4]] * 3))
    assert tokenizer.vocab_size == 5
    assert [tokenizer.token_of(i) for i in range(3)] == NAMES
    assert tokenizer.decode(tokens[0].tolist()) == "polar bear"
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.identity == tokenizer.identity


def test_an_unknown_class_is_named_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog")
    tokenizer = ClassesConfig(path=tmp_path / "classes.txt").build()
    with pytest.raises(ValueError, match=r"^'lorry' is none of the 2 classes of .*classes\.txt$"):
        tokenizer.encode(["cat", "lorry", "lorry"])
    with pytest.raises(ValueError, match=r"^'a', 'b', 'c' and 2 more are none"):
        tokenizer.encode(["cat", *"abcde"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "", "needs a name or more"),
        ("classes.txt", "cat\n\ndog", "none of them empty"),
        ("classes.txt", "cat\ndog\ncat", "has the class 'cat' twice"),
        ("meta.json", "[1]", "does not name classes"),
        ("meta.json", '{"classes": [1, 2]}', "does not list the names"),
        ("meta.json", "{", "does not name classes"),
    ],
)
def test_a_file_of_no_classes_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        ClassesConfig(path=tmp_path / name).build()
    assert str(tmp_path / name) in str(refused.value)


def test_settings_that_would_change_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        ClassesConfig(path=tmp_path / "none.txt").build()
    with pytest.raises(ValueError, match="context_length must be 3"):
        ClassesConfig(path=tmp_path, context_length=77)
    with pytest.raises(ValueError, match="stop_words must be keep"):
        ClassesConfig(path=tmp_path, stop_words="drop")
