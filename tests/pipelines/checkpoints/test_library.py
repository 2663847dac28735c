"""A run that the commands trained is a model of the library, without them."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlp
from pipelines.checkpoints.checkpoint import find_checkpoint, load_model, read_run
from pipelines.checkpoints.store import find_damage, read_saved
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from tests.manual import blocks
from tests.pipelines.runs import pretrain
from vlp.checkpoint import SETTINGS
from vlp.data.image_tables import ImageTable
from vlp.data.loader import load_images
from vlp.run import RunConfig
from vlp.shards.storage.local import LocalFolder

MakeRun = Callable[..., RunConfig]
SUPERCLASS = {"objective": {"name": "superclass"}}
CLUSTER = {"mask": {"name": "cluster", "threshold": [[0.0, 0.2], [1.0, 0.6]]}}
MAE = {"objective": {"name": "mae", "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}}


def train(run: RunConfig, output: Path) -> Path:
    """Returns the run's folder."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    pretrain(run, output, machine=MachineConfig(num_workers=0), journal=journal)
    return output


@pytest.fixture
def images(tiny_world: Path) -> list[bytes]:
    return ImageTable(tiny_world / "retrieval.parquet", "captions").first_images(3)


@pytest.mark.parametrize(
    "changes", [{}, SUPERCLASS, CLUSTER, MAE], ids=["clip", "superclass", "cluster", "mae"]
)
def test_the_library_reads_the_run_and_the_model_that_the_commands_read(
    changes: dict[str, Any], tiny_run: MakeRun, images: list[bytes], tmp_path: Path
) -> None:
    folder = train(tiny_run(**changes), tmp_path / "run")
    checkpoint = find_checkpoint(folder)
    objective, run = load_model(checkpoint, torch.device("cpu"))
    for place in (folder, str(checkpoint)):
        model = vlp.load(place)
        assert model.config == run == read_run(checkpoint)
        batch = load_images(images, image_size=32, normalization=run.data.normalization)
        assert torch.equal(torch.stack([model.preprocess(image) for image in images]), batch)
        with torch.no_grad():
            assert torch.equal(model.features(batch), objective.features(batch))


def test_a_picture_is_prepared_as_its_encoded_bytes(tiny_run: MakeRun, tmp_path: Path) -> None:
    model = vlp.load(
        train(tiny_run(training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}), tmp_path / "run")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    for mode in ("RGBA", "RGB", "L"):
        picture, stream = Image.fromarray(pixels).convert(mode), io.BytesIO()
        picture.save(stream, format="PNG")
        assert torch.equal(model.preprocess(picture), model.preprocess(stream.getvalue()))
    with pytest.raises(ValueError, match="no image"):
        model.preprocess(b"text")


def test_the_code_of_the_manual_compares_a_photograph_with_texts(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = {code for code in blocks("python") if "vlp.load(" in code}
    train(tiny_run(), tmp_path / "results" / "pretrain" / "clip-1a2b3c4d")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "the manual", "exec"), names)
    assert names["scores"].shape == (1, 2)


USE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "mlflow", "pydantic", "pipelines"}:
            raise ImportError(f"{name} is not for the library")

sys.meta_path.insert(0, Nothing())
import torch
import vlp

before = torch.get_rng_state()
model = vlp.load(sys.argv[1])
assert torch.equal(before, torch.get_rng_state())
images = torch.stack([model.preprocess(open(file, "rb").read()) for file in sys.argv[2:]])
image, text = model.encode_image(images), model.encode_text(*model.tokenize(["a red circle", "two squares"]))
assert not image.requires_grad and not model.objective.training
one, listed = (model.encode_text(*model.tokenize(texts)) for texts in ("two squares", ["two squares"]))
assert torch.equal(one, listed)
print((image @ text.T).tolist())
"""


def test_a_model_is_used_in_a_process_without_ray_mlflow_and_pipelines(
    tiny_run: MakeRun, images: list[bytes], tmp_path: Path
) -> None:
    folder = train(tiny_run(), tmp_path / "run")
    for number, image in enumerate(images):
        (tmp_path / f"{number}.jpg").write_bytes(image)
    files = [str(tmp_path / f"{number}.jpg") for number in range(len(images))]
    command = [sys.executable, "-c", USE, str(folder), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    objective, run = load_model(find_checkpoint(folder), torch.device("cpu"))
    with torch.no_grad():
        batch = load_images(images, image_size=32, normalization=run.data.normalization)
        texts = objective.encode_text(*run.tokenizer.build().encode(["a red circle", "two squares"]))
        expected = objective.encode_image(batch) @ texts.T
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected)


def test_an_objective_without_texts_says_so(tiny_run: MakeRun, tmp_path: Path) -> None:
    model = vlp.load(
        train(
            tiny_run(training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}, **SUPERCLASS),
            tmp_path / "run",
        )
    )
    with pytest.raises(TypeError, match="SuperClass has no text encoder"):
        model.encode_text(*model.tokenize("a"))
    with pytest.raises(
        TypeError, match="SuperClass learns no space that images and texts share; use features"
    ):
        model.encode_image(torch.zeros(1, 3, 32, 32))


def test_what_is_no_checkpoint_is_named(tiny_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is neither a checkpoint nor a finished run"):
        vlp.load(tmp_path)
    checkpoint = find_checkpoint(
        train(tiny_run(training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}), tmp_path / "run")
    )
    file = checkpoint / SETTINGS
    text = file.read_text()
    file.write_text(text.replace('"seed"', '"sede"'))
    with pytest.raises(ValueError, match=r"config\.json: sede is not a setting of RunConfig"):
        vlp.load(checkpoint)
    file.write_text(text[:100])
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        vlp.load(checkpoint)
    file.unlink()
    with pytest.raises(ValueError, match=r"has no config\.json"):
        vlp.load(checkpoint)


def test_the_settings_are_among_the_checksums(tiny_run: MakeRun, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(
        train(tiny_run(training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}), tmp_path / "run")
    )
    saved = read_saved(LocalFolder(checkpoint))
    assert saved is not None
    assert {"config.json", "config.yaml", "model.safetensors", "training.pt"} == set(saved.files)
    (checkpoint / SETTINGS).write_text((checkpoint / SETTINGS).read_text().replace("tiny", "tony"))
    assert find_damage(checkpoint) == "its config.json has other content than was written"
