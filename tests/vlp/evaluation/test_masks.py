"""What masks hide of the images of a set, and what they leave of what captions name."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from vlp.core.plain import from_plain
from vlp.encoders.text import TextConfig
from vlp.encoders.vit import ViTConfig
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.hiding import Hiding
from vlp.evaluation.mask_distance import MaskDistance
from vlp.evaluation.objects_left import NamedObjects
from vlp.evaluation.sets import CaptionedImages
from vlp.evaluation.what_is_left import MaskedSimilarity
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.metrics.intervals import intervals
from vlp.metrics.outcomes import WhatIsLeft
from vlp.objectives import Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.mae import MAEConfig
from vlp.tiny_world import TinyWorldConfig, write_corpus
from vlp.tokenizers.clip_bpe import ClipBPEConfig

SIZE, NUM_IMAGES = 32, 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CaptionedImages:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(TinyWorldConfig(num_train=1, num_heldout=NUM_IMAGES, image_size=SIZE), folder)
    return CaptionedImages("x", folder / "retrieval.parquet")


@pytest.fixture(scope="module")
def model() -> Embedder:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=SIZE, patch_size=8, width=16, depth=1, num_heads=2).build()
    tokenizer = ClipBPEConfig(context_length=24).build()
    vocabulary = Vocabulary(tokenizer.vocab_size, 24, tokenizer.special_tokens)
    text = TextConfig(width=16, depth=1, num_heads=2)
    config = ContrastiveConfig(embed_dim=8, text_encoder=text)
    objective = config.build(encoder, NoMask(), vocabulary=vocabulary)
    return Embedder(objective.eval(), tokenizer, image_size=SIZE, normalization="clip")


def test_avg_dist_is_that_of_an_exact_distance_transform(data: CaptionedImages, model: Embedder) -> None:
    mask = RandomMask(mask_ratio=0.75)
    found = MaskDistance(hidden_by=(mask, NoMask())).measure(model, data)
    hidden = Hiding(mask, model.objective).hidden(model.load(list(data.images.images())))
    expected = []
    for one in hidden.view(-1, 4, 4):
        pixels = one.repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
        expected.append(np.asarray(distance_transform_edt(pixels))[pixels].mean() / SIZE)
    own = found["mask_distance/random"]
    assert torch.allclose(own.distances, torch.tensor(expected).float(), atol=1e-5)
    assert own.metrics()["share"] == 0.75
    assert found["mask_distance/none"].metrics() == {"share": 0.0, "avg_dist": 0.0}


def test_all_is_left_where_nothing_is_hidden(data: CaptionedImages, model: Embedder) -> None:
    """And the lead over other images is that of the full matrix of similarities."""
    masks = (NoMask(), ClusterMask(target_mask_ratio=0.5, min_mask_ratio=0.0))
    found = MaskedSimilarity(hidden_by=masks).measure(model, data)
    whole = found["what_is_left/none"]
    assert torch.allclose(whole.before, whole.after, atol=1e-6)
    assert whole.metrics()["left"] == pytest.approx(1, abs=1e-5)
    captions = data.images.labels()
    texts = model.embed_texts([text for texts in captions for text in texts])
    matrix = texts @ model.embed_images(data.images).T
    image_of = [image for image, texts in enumerate(captions) for _ in texts]
    is_own = torch.zeros_like(matrix, dtype=torch.bool)
    is_own[range(len(image_of)), image_of] = True
    assert torch.allclose(whole.before, matrix[is_own], atol=1e-6)
    others = matrix[~is_own].view(len(matrix), -1).mean(dim=1)
    assert torch.allclose(whole.of_others, others, atol=1e-6)
    assert not torch.allclose(found["what_is_left/cluster"].after, whole.after)


def test_what_is_left_of_the_lead_has_an_interval_over_images() -> None:
    before, others = torch.full((400,), 0.5), torch.zeros(400)
    after = torch.where(torch.arange(400) % 2 == 0, 0.5, 0.0)
    outcomes = WhatIsLeft(before, after, others, images=torch.arange(400) // 4)
    found = intervals(outcomes)["left"]
    assert outcomes.metrics()["left"] == pytest.approx(0.5)
    assert found == pytest.approx((0.5, 0.5), abs=1e-9)  # every image keeps half


def test_masks_are_judged_where_they_are_named(data: CaptionedImages) -> None:
    sets = {"retrieval": {"x": str(data.path)}}
    given = {"mask_distance": {"hidden_by": [{"name": "random"}]}}
    named = from_plain(EvaluationConfig, sets | {"protocols": given}).measurements(MAEConfig())
    assert [one.protocol.name for one in named] == ["mask_distance"]
    assert MaskDistance.details({"mask_distance/random/avg_dist", "y"}) == {
        "mask_distance/random/avg_dist": "random AvgDist"
    }
    for protocol in (MaskDistance, MaskedSimilarity):
        with pytest.raises(ValueError, match="attention reads attention; take it out"):
            from_plain(protocol, {"hidden_by": [{"name": "attention"}]})


def test_a_mask_that_hides_what_is_alike_leaves_more_of_objects_than_of_the_background(
    data: CaptionedImages, model: Embedder
) -> None:
    """The sample corpus says where objects are; a random mask leaves as much of them as of all else."""
    cluster = ClusterMask(target_mask_ratio=0.5, min_mask_ratio=0.0)
    protocol = NamedObjects(hidden_by=(RandomMask(mask_ratio=0.5), cluster, NoMask()))
    found = {key: one.metrics() for key, one in protocol.measure(model, data).items()}
    assert found["objects_left/none"] == {"objects": 1.0, "background": 1.0}
    random, alike = found["objects_left/random"], found["objects_left/cluster"]
    assert random["objects"] == pytest.approx(random["background"], abs=0.1)
    assert alike["objects"] > alike["background"] + 0.1


def test_a_set_that_does_not_say_where_objects_are_is_refused(data: CaptionedImages, tmp_path: Path) -> None:
    file = tmp_path / "plain.parquet"
    pq.write_table(pq.read_table(data.path, columns=["image", "captions"]), file)
    given = {"objects_left": {"hidden_by": [{"name": "random"}]}}
    config = from_plain(EvaluationConfig, {"retrieval": {"x": str(file)}, "protocols": given})
    (line,) = [line for line in config.refusals(MAEConfig()) if "text encoder" not in line]
    assert "lacks the columns image and objects; it has image, captions" in line
