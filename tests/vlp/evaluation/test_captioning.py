"""Captions: the search finds the likeliest text, the decoder learns what features tell."""

from itertools import pairwise, product
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from vlp.core.plain import from_plain
from vlp.encoders.vit import ViTConfig
from vlp.evaluation.captioner import Captioner, DecoderSize, beam_search
from vlp.evaluation.captioning import Captioning
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.hiding import Hiding
from vlp.evaluation.sets import ImagesToCaption
from vlp.masking.attention import AttentionMask
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.metrics.fitting import Recipe
from vlp.objectives import Vocabulary
from vlp.objectives.mae import MAEConfig
from vlp.objectives.superclass import SuperClassConfig
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.local import LocalFolder
from vlp.tiny_world import TinyWorldConfig, write_corpus
from vlp.tokenizers.clip_bpe import ClipBPEConfig

CPU = torch.device("cpu")
END, VOCAB = 1, 4


def chain(generator: torch.Generator) -> Tensor:
    """Log-likelihoods of each token after each, for each of three images."""
    return torch.randn(3, VOCAB, VOCAB, generator=generator).mul(2).log_softmax(dim=2)


def likeliest(table: Tensor, max_length: int) -> list[int]:
    """Of all texts, by the mean log-likelihood up to the first end."""
    best, found = -float("inf"), []
    for tail in product(range(VOCAB), repeat=max_length - 1):
        text = [0, *tail]
        until = text.index(END) + 1 if END in text else max_length
        total = sum(table[a, b].item() for a, b in pairwise(text[:until]))
        if total / until > best:
            best, found = total / until, text[:until] + [END] * (max_length - until)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_keeps_all_texts_finds_the_likeliest(seed: int) -> None:
    table = chain(torch.Generator().manual_seed(seed))
    begun = torch.zeros(3, 1, dtype=torch.long)
    found = beam_search(
        lambda images, texts: table[images, texts[:, -1]], begun, end=END, num_beams=VOCAB**4, max_length=5
    )
    for text, one in zip(found.tolist(), table, strict=True):
        assert text + [END] * (5 - len(text)) == likeliest(one, 5)


def test_one_beam_takes_the_likeliest_token_always() -> None:
    table = chain(torch.Generator().manual_seed(0))
    begun = torch.zeros(3, 1, dtype=torch.long)
    found = beam_search(
        lambda images, texts: table[images, texts[:, -1]], begun, end=END, num_beams=1, max_length=5
    )
    for text, one in zip(found.tolist(), table, strict=True):
        for last, token in pairwise(text):
            assert token == (END if last == END else one[last].argmax())


def test_a_decoder_says_what_features_tell() -> None:
    said = ["a red dog", "two snowmobiles run", "the cat", "nothing at all here"]
    images = torch.arange(4).repeat(5)
    captioner = Captioner(torch.eye(4), ClipBPEConfig(context_length=12).build(), [said[i] for i in images])
    captioner.fit(
        torch.eye(4),
        images,
        size=DecoderSize(prefix_length=2, width=32, depth=1, num_heads=2),
        recipe=Recipe(epochs=60, lr=1e-2, weight_decay=0.0, batch_size=10),
        device=CPU,
    )
    for num_beams in (1, 3):
        assert captioner.captions(torch.eye(4), num_beams=num_beams) == said


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImagesToCaption:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(TinyWorldConfig(num_train=1, num_heldout=40, image_size=32), folder)
    table = pq.read_table(folder / "retrieval.parquet")
    pq.write_table(table.slice(0, 32), folder / "train.parquet")
    pq.write_table(table.slice(32), folder / "test.parquet")
    return ImagesToCaption("x", folder)


@pytest.fixture
def model() -> Embedder:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, num_heads=2).build()
    tokenizer = ClipBPEConfig(context_length=24).build()
    vocabulary = Vocabulary(tokenizer.vocab_size, 24, tokenizer.special_tokens)
    objective = SuperClassConfig().build(encoder, NoMask(), vocabulary=vocabulary)
    return Embedder(objective.eval(), tokenizer, image_size=32, normalization="clip")


def test_what_is_hidden_is_grey_and_all_else_as_it_was(data: ImagesToCaption, model: Embedder) -> None:
    images = model.load(list(data.test.images()))
    changed = Hiding(RandomMask(mask_ratio=0.75), model.objective)(images)
    is_grey = (changed == 0).all(dim=1).unflatten(1, (4, 8)).unflatten(3, (4, 8)).all(dim=4).all(dim=2)
    assert is_grey.flatten(1).sum(dim=1).tolist() == [12] * len(images)
    kept = changed != 0
    assert torch.equal(changed[kept], images[kept])


def test_captions_of_hidden_images_are_measured_for_any_objective(
    data: ImagesToCaption, model: Embedder
) -> None:
    masks = (RandomMask(mask_ratio=0.5), ClusterMask(target_mask_ratio=0.5, min_mask_ratio=0.0))
    protocol = Captioning(hidden_by=masks, epochs=3, width=16, depth=1, num_heads=2, num_beams=2)
    found = protocol.measure(model, data)
    assert list(found) == ["captioning", "captioning/random", "captioning/cluster"]
    assert all(len(one) == len(one.captions) == 8 for one in found.values())
    config = EvaluationConfig(captioning={"x": open_folder(data.path)})
    config.check()
    assert [one.protocol.name for one in config.measurements(MAEConfig())] == ["captioning"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_by": [{"name": "attention"}]}, "hidden_by must look at pixels alone, and attention reads"),
        (
            {"hidden_by": [{"name": "random"}, {"name": "random"}]},
            "hidden_by must have different names, got random",
        ),
        ({"hidden_by": [{"name": "rndom"}]}, "rndom"),
        ({"width": 30}, "width 30 is not a multiple of num_heads 4"),
        ({"num_beams": 0}, "num_beams must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        from_plain(Captioning, settings)
    assert "\n" not in str(refused.value)
    assert AttentionMask().views


def test_a_set_with_an_image_without_captions_is_refused(data: ImagesToCaption, tmp_path: Path) -> None:
    table = pq.read_table(str(data.train.place))
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    empty = table.set_column(1, "captions", [[[], *table["captions"].to_pylist()[1:]]])
    pq.write_table(empty, tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"^captioning\.x: .*test\.parquet needs an image or more"):
        EvaluationConfig(captioning={"x": LocalFolder(tmp_path)}).check()
