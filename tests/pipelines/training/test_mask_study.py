"""`vlp masks`: what it shows is what the strategies choose, of any image, and mistakes end in one line."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Generator, Tensor

from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.training.mask_runs import registered_runs
from pipelines.training.mask_study import Models, Study, read_photos
from vlp.core.seeds import mix_seeds
from vlp.masking import STRATEGIES, MaskStrategy, visible_slots
from vlp.masking.distance import average_distance
from vlp.masking.strategy import uniform_noise
from vlp.pictures.mask_grid import DIALS, MOMENTS, NUM_SEEDS

SMALL = (
    "image_encoder.image_size=32",
    "image_encoder.patch_size=4",
    "image_encoder.width=16",
    "image_encoder.depth=1",
    "image_encoder.num_heads=2",
)
BYTES = 8
"""Of a bit for each of 64 patches."""


def photo(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A picture whose neighbouring patches look alike, as those of photographs do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    for seed, name in enumerate(("first.png", "second.jpg", "below/third.webp")):
        photo(seed).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def vlp_masks(*arguments: object) -> list[str]:
    result = CliRunner().invoke(main, ["masks", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def read_page(file: Path) -> dict[str, Any]:
    """What a page shows."""
    (line,) = re.findall(r"^const page = (.*);$", file.read_text(), re.MULTILINE)
    return json.loads(line)


def bits(row: dict[str, Any], layer: str, place: int, image: int) -> Tensor:
    """(64,) bool: a mask of a page of three images, by the place of its setting and seed among its row's."""
    packed = np.frombuffer(base64.b64decode(row[layer]), np.uint8)
    start = (3 * place + image) * BYTES
    return torch.from_numpy(np.unpackbits(packed[start : start + BYTES], bitorder="little")).bool()


@pytest.fixture(scope="module")
def everything(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What is said, and the folder, of all registered masks."""
    output = tmp_path_factory.mktemp("out")
    return vlp_masks(photos, *SMALL, "mask.anchor_ratio=0.07", "seed=5", "-o", output), output


def chosen(mask: MaskStrategy, study: Study, progress: float, seed: int) -> tuple[Tensor, Tensor]:
    """What the strategy hides, and what the encoder does not see: as `Objective.choose_visible` has it."""
    inputs = study.inputs
    generator = Generator().manual_seed(mix_seeds(seed, 0))
    masked = mask(inputs, progress=progress, generator=generator)
    noise = None if mask.is_exact else uniform_noise(inputs, generator)
    return masked, visible_slots(masked, mask.num_visible(64), noise).masked(64)


def test_every_setting_of_the_page_is_what_the_strategy_chooses(photos: Path, tmp_path: Path) -> None:
    """What is calibrated is given here, so that the images do not decide it."""
    arguments = (*SMALL, "mask.threshold=0.4", "mask.simplicity=[[0, [0.2, 0.4, 0.6]]]", "seed=5")
    vlp_masks(photos, *arguments, "-o", tmp_path)
    rows = read_page(tmp_path / "masks.html")["rows"]
    runs = {run.name: run for run in registered_runs(arguments)}
    assert [row["name"] for row in rows] == list(runs)
    models, compared = Models(MachineConfig()), 0
    for row in rows:
        study = Study(runs[row["name"]], tuple(read_photos([photos], 3)), models)
        for place in range(0, int(np.prod(row["sizes"])), 7):
            if not row["possible"][place // row["sizes"][-1]]:
                continue
            anchor, target, moment, draw = np.unravel_index(place, row["sizes"])
            wanted = {
                "anchor_ratio": DIALS["anchor_ratio"][anchor],
                "target_ratio": DIALS["target_ratio"][target],
            }
            dials = study.mask.dials
            given = {dials[dial]: wanted[dial] for dial in dials if wanted[dial] is not None}
            mask = replace(study.mask, **given)
            found = chosen(mask, study, min(MOMENTS[moment], 1 - 1e-6), 5 + int(draw))
            for layer, expected in zip(("masked", "hidden"), found, strict=True):
                for image in range(3):
                    assert torch.equal(bits(row, layer, place, image), expected[image]), (row["name"], place)
                    compared += 1
    assert compared > 400


def test_every_registered_mask_is_shown_with_its_variants(everything: tuple[list[str], Path]) -> None:
    said, output = everything
    page = read_page(output / "masks.html")
    names = [row["name"] for row in page["rows"]]
    shown = {mask for mask in STRATEGIES if any(f"{name}_".startswith(f"{mask}_") for name in names)}
    assert shown == STRATEGIES.keys() - {"none"}, "it hides nothing"
    assert {"cluster_rgb", "cluster_embedding", "cluster_mix", "importance_attention"} <= set(names)
    assert [image["name"] for image in page["images"]] == ["third.webp", "first.png", "second.jpg"]
    assert {name.split()[0] for name in said} >= set(names)
    for file in ("masks.png", "clusters.png", "distances.png"):
        with Image.open(output / file) as picture:
            assert min(picture.size) > 300


def test_a_threshold_is_searched_that_meets_the_target_on_the_images(
    everything: tuple[list[str], Path],
) -> None:
    row = next(row for row in read_page(everything[1] / "masks.html")["rows"] if row["name"] == "cluster_rgb")
    assert row["remark"] == "calibrated on these images"
    for target, ratio in enumerate(DIALS["target_ratio"]):
        places = [target * NUM_SEEDS + draw for draw in range(NUM_SEEDS)]
        shares = [bits(row, "masked", place, image).float().mean() for place in places for image in range(3)]
        assert sum(shares) / len(shares) == pytest.approx(ratio or 0.5, abs=0.12)


def test_where_weights_come_from_is_said(everything: tuple[list[str], Path]) -> None:
    remarks = {row["name"]: row["remark"] for row in read_page(everything[1] / "masks.html")["rows"]}
    assert remarks["attention"] == "untrained weights, seed 5"
    assert remarks["random"] == ""


def test_what_cannot_be_set_is_said_in_its_place(everything: tuple[list[str], Path]) -> None:
    """More anchors than are to be hidden."""
    row = next(row for row in read_page(everything[1] / "masks.html")["rows"] if row["name"] == "cluster_rgb")
    anchor, target = DIALS["anchor_ratio"].index(0.2), DIALS["target_ratio"].index(0.1)
    place = anchor * len(DIALS["target_ratio"]) + target
    assert not row["possible"][place]
    assert "target_mask_ratio must be above anchor_ratio (0.2)" in row["notes"][place]
    assert sum(row["possible"]) > 0.8 * len(row["possible"])


def test_ratio_and_distance_are_those_of_the_masks(everything: tuple[list[str], Path]) -> None:
    for row in read_page(everything[1] / "masks.html")["rows"]:
        places = range(NUM_SEEDS)  # of the first setting
        hidden = torch.stack([bits(row, "hidden", place, image) for place in places for image in range(3)])
        assert row["ratios"][0] == pytest.approx(hidden.float().mean().item(), abs=1e-4)
        pixels = hidden[:3].view(-1, 8, 8).repeat_interleave(4, 1).repeat_interleave(4, 2)
        assert row["distances"][0] == pytest.approx(average_distance(pixels).mean().item(), abs=1e-3)


def test_a_page_of_all_masks_on_twelve_images_is_below_15_megabytes() -> None:
    """Counted: a bit per patch and layer, a byte for its cluster, of every setting and seed; in base64."""
    total, num_patches, num_images = 0, 196, 12
    for run in registered_runs(()):
        assert run.image_encoder.num_patches == num_patches
        stops = [len(DIALS[dial]) for dial in run.mask.dials] + [len(MOMENTS)] * run.mask.is_changing
        layers = 2 * 25 + (run.mask.name in ("adaptive", "cluster", "kmeans")) * (25 + num_patches)
        total += int(np.prod(stops)) * NUM_SEEDS * num_images * layers * 4 // 3
    assert total + num_images * 60_000 < 15e6


def test_files_of_runs_are_shown_as_they_are_set(photos: Path, tmp_path: Path) -> None:
    """A setting of masks is for the runs whose mask has it."""
    for name, mask in {
        "half": "{name: random, mask_ratio: 0.25}",
        "grown": "{name: cluster, threshold: 0.2}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\nobjective: {{name: contrastive}}\nmask: {mask}\n"
        )
    files = [tmp_path / "half.yaml", tmp_path / "grown.yaml"]
    vlp_masks(photos, *files, *SMALL, "mask.mask_ratio=0.75", "-n", 2, "-o", tmp_path / "out")
    page = read_page(tmp_path / "out" / "masks.html")
    assert [row["name"] for row in page["rows"]] == ["half", "grown"]
    assert len(page["images"]) == 2
    assert page["rows"][0]["ratios"][0] == 0.75
    assert page["rows"][1]["remark"] == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.png"], "no such file or folder: nowhere.png"),
        (["empty"], "empty has no image"),
        (["broken.jpg"], "broken.jpg is not an image that can be read"),
        ([], "no image is given"),
        (["PHOTOS", "mask.name=clusters"], "no mask is called clusters; did you mean cluster?"),
        (["PHOTOS", "mask.anchor_ration=0.1"], "did you mean mask.anchor_ratio?"),
        (["PHOTOS", "mask.mask_ratio=1.5"], "mask.mask_ratio"),
        (["PHOTOS", "nowhere.yaml"], "no such file: nowhere.yaml"),
        (["PHOTOS", "pipeline.yaml"], "pipeline.yaml is the file of a pipeline, not for `vlp masks`"),
        (["PHOTOS", "mask.name=attention", *SMALL, "init_from.path=nowhere"], "init_from.path: nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken.jpg").write_bytes((photos / "second.jpg").read_bytes()[:200])
    Path("pipeline.yaml").write_text("name: small\nruns: []\n")
    given = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    result = CliRunner().invoke(main, ["masks", *given])
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not Path("masks").exists()
