"""What guessing gives, by arithmetic, is what scores without any sense give on average."""

from pathlib import Path

import pytest
import torch

from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.retrieval import Retrieval
from vlp.evaluation.sets import CaptionedImages
from vlp.metrics.retrieval import retrieval_outcomes
from vlp.shards.storage.local import LocalFolder
from vlp.tiny_world import TinyWorldConfig, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(TinyWorldConfig(num_train=1, num_heldout=24, image_size=32), folder)
    return folder


def test_chance_of_retrieval_is_the_mean_of_arbitrary_embeddings(corpus: Path) -> None:
    data = CaptionedImages("x", corpus / "retrieval.parquet")
    captions = data.images.labels()
    image_of_text = torch.tensor([image for image, texts in enumerate(captions) for _ in texts])
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {}
    for _ in range(400):
        images, texts = (
            torch.nn.functional.normalize(torch.randn(n, 32, generator=generator), dim=1)
            for n in (len(captions), len(image_of_text))
        )
        for direction, outcomes in retrieval_outcomes(images, texts, image_of_text).items():
            for key, value in outcomes.metrics().items():
                found.setdefault(f"{direction}/{key}", []).append(value)
    chance = Retrieval().chance(data)
    assert chance
    for key, value in chance.items():
        assert torch.tensor(found[key]).mean() == pytest.approx(value, abs=0.015)


def test_every_set_has_the_chance_of_its_size(corpus: Path) -> None:
    config = EvaluationConfig(
        retrieval={"a": LocalFolder(corpus / "retrieval.parquet")},
        classification={"b": LocalFolder(corpus / "classification")},
    )
    chance = config.chance()
    assert chance["a/text_to_image/recall@1"] == pytest.approx(1 / 24)
    assert chance["b/zero_shot/acc5"] == 5 * chance["b/knn/acc1"] == 5 * chance["b/few_shot/10/acc1"]
    assert all(0 < value <= 1 for value in chance.values())
