"""The download of a pipeline: what it is done again for, and what ends it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.machine import read_settings
from pipelines.workflow.plan import Plan
from tests.paths import REPOSITORY
from tests.servers.ports import free_port

DEMO = str(REPOSITORY / "conf/pipeline/demo.yaml")


def identity(*overrides: str) -> dict[str, Any]:
    """What decides the result of the stage, beside its URL list."""
    return Plan.read(read_settings([DEMO, *overrides])[0]).download(Path("urls.jsonl")).identity


def test_how_persistently_it_asks_makes_no_other_download() -> None:
    assert identity("download.timeout=99", "download.retries=7", "serve.host=10.0.0.2") == identity()
    assert identity("download.image_size=48") != identity()


def test_a_download_of_nothing_ends_the_pipeline_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = {
        "name": "nothing",
        "corpus": {"name": "tiny_world", "num_train": 4, "num_heldout": 4, "image_size": 32},
        "serve": {"port": free_port(), "failures": {"http_404": 1.0}},
        "download": {"image_size": 32},
        "common": {
            "image_encoder": {"image_size": 32, "patch_size": 8},
            "training": {"batch_size": 4},
        },
        "runs": [{"base": str(REPOSITORY / "conf/run/clip.yaml")}],
        "machine": {"num_workers": 0, "data_workers": 0},
    }
    (tmp_path / "nothing.yaml").write_text(yaml.safe_dump(pipeline))
    result = CliRunner().invoke(main, ["run", "nothing.yaml"])
    assert result.exit_code == 2, result.output
    said = result.stderr.splitlines()[-1]
    assert said.startswith("vlp: download: every URL failed; outcomes.csv in ")
    (counts,) = tmp_path.glob("results/nothing/download-*/outcomes.csv")
    assert str(counts.parent) in said
    assert "http_404" in counts.read_text()
    assert "[docfreq]" not in result.output
