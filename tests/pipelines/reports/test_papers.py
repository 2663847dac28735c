"""The papers' numbers: what they say of themselves holds of what stands here."""

from statistics import mean

import pytest

from pipelines.reports.papers import PaperTable, paper_rows, paper_tables
from vlp.evaluation.config import EvaluationConfig

CLUSTER_MASKING = "2405.08815"
ROWS = {
    (row.name, part): row.metrics
    for row in paper_rows()
    if row.table.paper == CLUSTER_MASKING
    for part in {key.split("/")[1] for key in row.metrics}
}
PRINTED_MEANS = {
    "CLIP": 36.1,
    "FLIP": 33.5,
    "FLIP_Attn": 35.8,
    "K-Means": 35.0,
    "RGB 0.5": 36.5,
    "RGB 0.3": 36.8,
    "Embedding": 38.2,
}


@pytest.mark.parametrize("method", PRINTED_MEANS)
def test_zero_shot_means_are_those_that_the_paper_prints(method: str) -> None:
    numbers = [100 * value for key, value in ROWS[method, "zero_shot"].items() if key.endswith("/acc1")]
    assert len(numbers) == 12
    assert mean(numbers) == pytest.approx(PRINTED_MEANS[method], abs=0.08)


def test_columns_of_retrieval_are_the_right_way_round() -> None:
    """What images find is a share of 1,000 images, and what captions find one of 5,000 captions."""
    shares = {
        (way, value)
        for name in PRINTED_MEANS
        for key, value in ROWS[name, "image_to_text"].items()
        for data, way, _ in [key.split("/")]
        if data.startswith("flickr")
    }
    whole = {way: [_is_whole(size * value) for w, value in shares if w == way] for way, size in SIZES.items()}
    # Four numbers of 84 are a hundredth off.
    assert min(mean(of_way) for of_way in whole.values()) > 0.9
    assert mean(_is_whole(1000 * value) for way, value in shares if way == "text_to_image") < 0.5


SIZES = {"image_to_text": 1000, "text_to_image": 5000}


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6


@pytest.mark.parametrize(
    ("method", "objects", "attributes"),
    [
        ("CLIP", 73.93, 68.75),
        ("FLIP", 71.97, 66.86),
        ("FLIP_Attn 0.3", 73.77, 67.60),
        ("RGB 0.5", 73.18, 67.86),
        ("RGB 0.3", 75.91, 69.91),
    ],
)
def test_means_of_parts_are_computed_anew(method: str, objects: float, attributes: float) -> None:
    metrics = ROWS[method, "choice"]
    assert 100 * metrics["sugarcrepe/choice/obj/mean_part_acc1"] == pytest.approx(objects, abs=0.006)
    assert 100 * metrics["sugarcrepe/choice/att/mean_part_acc1"] == pytest.approx(attributes, abs=0.006)
    assert "sugarcrepe/choice/rel/mean_part_acc1" not in metrics  # of a single part


def test_every_column_is_a_metric_of_a_protocol() -> None:
    known = {"time", "fine_tune/acc1"}
    protocols = EvaluationConfig().given_protocols.values()
    metrics = {metric for protocol in protocols for metric in protocol.metrics}
    for table in paper_tables():
        for column in table.columns:
            name = column.partition("/")[2] or column
            is_part = name.startswith("choice/") and name.endswith("/acc1")
            assert name in metrics | known or is_part, column


def test_a_row_that_lacks_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="FLIP has 1 numbers for 2 columns"):
        PaperTable(paper="1", about="", source="", columns=("a", "b"), rows={"FLIP": (1.0,)})
