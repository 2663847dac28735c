"""Codes are fitted to the images of shards, and a run that cannot use its codes is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn import cluster

from pipelines.commands.main import main
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.shards.codes import CodesManifest, FitCodesConfig, fit
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.pipelines.runs import run_identity
from vlp.data.transforms import decode, to_tensor
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet

KMeans: Any = cluster.KMeans  # without types: its defaults would tell them
MakeRun = Callable[..., RunConfig]
SIMMIM: dict[str, Any] = {
    "objective": {"name": "simmim", "target": {"name": "color_clusters", "num_codes": 16}},
    "mask": {"name": "grid", "cell_size": 2},
    "data": {"normalization": "imagenet"},
}


def fitted(shards: Path, output: Path, **settings: Any) -> tuple[np.ndarray, CodesManifest]:
    layers = Layers().add({"shards": str(shards), "image_size": 32}, "x").set(settings, "x")
    journal = Journal(output.parent / "journal")
    journal.begin(name="codes", tags={})
    manifest = fit(build(FitCodesConfig, layers), output, machine=MachineConfig(), journal=journal)
    return np.load(output), manifest


def test_a_palette_is_near_the_pixels_of_the_shards(shards: Path, tmp_path: Path) -> None:
    codes, manifest = fitted(shards, tmp_path / "palette.npy", **{"target.num_codes": 16})
    pixels = torch.stack([to_tensor(decode(ShardSet(shards).image_bytes(i))) for i in range(24)])
    colors = pixels.permute(0, 2, 3, 1).reshape(-1, 3).double() / 127.5 - 1
    distance = torch.cdist(colors, torch.from_numpy(codes).double()).amin(dim=1).square().mean().item()
    assert codes.shape == (16, 3)
    assert manifest.num_vectors == 24 * 128
    assert distance == pytest.approx(manifest.mean_squared_distance, rel=0.15)
    oracle = KMeans(16, n_init=1, random_state=0).fit(colors.numpy())
    assert distance < 1.15 * oracle.inertia_ / len(colors)


def test_the_seed_decides_the_codes_and_the_normalization_does_not(shards: Path, tmp_path: Path) -> None:
    few = {"target.num_codes": 8, "vectors_per_image": 50}
    first, again, other, clip = (
        fitted(shards, tmp_path / f"{i}.npy", **few, **changes)[0]
        for i, changes in enumerate(({}, {}, {"seed": 1}, {"target.normalization": "clip"}))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_allclose(first, clip, atol=1e-5)


def test_visual_words_are_fitted_to_patches(shards: Path, tmp_path: Path) -> None:
    target = {"name": "tokens", "num_codes": 32, "resolution": 4}
    codes, _ = fitted(shards, tmp_path / "words.npy", target=target)
    assert codes.shape == (32, 48)
    assert (np.linalg.norm(codes, axis=1) <= 1 + 1e-5).all()


def test_the_command_ends_with_the_settings_that_use_its_codes(
    shards: Path, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"shards={shards}", "image_size=32", "target.num_codes=16", "machine.storage=results"]
    result = CliRunner().invoke(main, ["fit-codes", *settings, "-o", "out/palette.npy"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].endswith(
        "objective.target.name=color_clusters objective.target.codes=out/palette.npy"
    )
    target = SIMMIM["objective"]["target"] | {"codes": "out/palette.npy"}
    run = tiny_run(**SIMMIM | {"objective": {"name": "simmim", "target": target}})
    assert len(resolve(run, MachineConfig()).shards) == 24


def test_mistakes_are_found_before_the_work(shards: Path, tiny_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shards: .* is not a folder of shards"):
        fitted(tmp_path, tmp_path / "palette.npy")
    with pytest.raises(ConfigError, match=r"num_images: 512 codes cannot be fitted to .* lower target\.num"):
        fitted(shards, tmp_path / "palette.npy", num_images=2)
    with pytest.raises(ConfigError, match="resolution 14 does not divide image_size 32"):
        fitted(shards, tmp_path / "words.npy", **{"target.name": "tokens"})
    target = SIMMIM["objective"]["target"] | {"codes": str(tmp_path / "no.npy")}
    run = tiny_run(**SIMMIM | {"objective": {"name": "simmim", "target": target}})
    with pytest.raises(
        ConfigError, match=r"objective\.target\.codes: no such file: .*no\.npy; make one with"
    ):
        resolve(run, MachineConfig())


def test_colours_under_another_normalization_are_refused(tiny_run: MakeRun) -> None:
    with pytest.raises(
        ConfigError, match=r"^test: objective\.target\.normalization is imagenet and data\.normalization clip"
    ):
        tiny_run(**SIMMIM | {"data": {"normalization": "clip"}})
    clip = {"name": "simmim", "target": {"name": "color_bins", "normalization": "clip"}}
    tiny_run(**SIMMIM | {"data": {"normalization": "clip"}, "objective": clip})


def test_the_identity_of_a_run_follows_its_codes_and_not_their_place(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    identities = []
    for name, value in (("a", 0.1), ("b", 0.1), ("c", 0.2)):
        np.save(tmp_path / f"{name}.npy", np.full((16, 3), value))
        target = SIMMIM["objective"]["target"] | {"codes": str(tmp_path / f"{name}.npy")}
        run = tiny_run(**SIMMIM | {"objective": {"name": "simmim", "target": target}})
        identities.append(run_identity(run))
    assert identities[0] == identities[1] != identities[2]
