"""Kendall's tau is scipy's, of all items and of drawn ones; broken sets are refused in one line."""

import io
import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import stats

from vlp.core.plain import from_plain
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.human_judgement import HumanJudgement
from vlp.evaluation.sets import JudgedCaptions
from vlp.metrics.intervals import named_intervals
from vlp.metrics.outcomes import Judgements
from vlp.metrics.statistics import KendallTau
from vlp.shards.storage.local import LocalFolder


@pytest.mark.parametrize("variant", ["b", "c"])
@pytest.mark.parametrize("seed", range(4))
def test_tau_is_that_of_scipy_however_items_are_drawn(variant: Literal["b", "c"], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    people = torch.randint(1, 5, (120,), generator=generator).float()
    scores = (0.3 * people + torch.randn(120, generator=generator)).mul(5).round()  # with ties
    drawn = torch.randint(120, (3, 120), generator=generator)
    counts = torch.zeros(3, 120, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones(3, 120, dtype=torch.float64))
    found = KendallTau(scores, people, variant)(counts)
    kendalltau: Any = stats.kendalltau  # its stubs know no result
    expected = [
        kendalltau(scores[rows].numpy(), people[rows].numpy(), variant=variant).statistic for rows in drawn
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_model_that_tells_nothing_apart_scores_nothing() -> None:
    people = torch.tensor([1.0, 2, 3, 4])
    found = Judgements(torch.zeros(4), people, images=torch.arange(4))
    assert found.metrics() == {"tau_b": 0, "tau_c": 0}
    assert named_intervals({"x": found})["x/tau_b"] == (0, 0)
    assert Judgements(people, people).metrics() == {"tau_b": 1, "tau_c": 1}


def test_a_prompt_without_a_place_for_the_caption_is_refused() -> None:
    with pytest.raises(ValueError, match=r"template: .*A photo") as refused:
        from_plain(HumanJudgement, {"template": "A photo"})
    assert "\n" not in str(refused.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    table = pa.table({"image": [stream.getvalue()] * 2, "filename": ["a.png", "b.png"]})
    pq.write_table(table, tmp_path / "images.parquet")
    return tmp_path


def test_every_judgement_is_an_item(folder: Path) -> None:
    pairs = [
        {"filename": "b.png", "caption": "a dog", "judgements": [1, 2, 4]},
        {"filename": "a.png", "caption": "a cat", "judgements": [0.25]},
    ]
    (folder / "judgements.json").write_text(json.dumps(pairs))
    data = JudgedCaptions("x", folder)
    data.check()
    assert data.size == 4
    assert data.pairs[0] == (1, "a dog", [1, 2, 4])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "has no judgement"),
        ([{"filename": "c.png", "caption": "a", "judgements": [1]}], "pair 0 lacks 'c.png', in itself or"),
        ([{"filename": "a.png", "judgements": [1]}], "pair 0 lacks 'caption'"),
    ],
)
def test_a_broken_set_is_refused_in_one_line(folder: Path, content: object, message: str) -> None:
    (folder / "judgements.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"^judgement\.x: .*judgements\.json:? {message}") as refused:
        EvaluationConfig(judgement={"x": LocalFolder(folder)}).check()
    assert "\n" not in str(refused.value)
