"""`import vlp` is a library: light, with a version and the types of its functions."""

import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest

import vlp
from tests.paths import REPOSITORY
from vlp.core.registry import Registry
from vlp.masking import MaskInputs, calibrate
from vlp.masking.cluster import ClusterMask


def test_importing_vlp_imports_nothing_beyond_the_standard_typing() -> None:
    code = (
        "import sys, typing; before = set(sys.modules); import vlp; print(*sorted(set(sys.modules) - before))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["vlp"]


def test_the_version_is_that_of_the_package() -> None:
    assert vlp.__version__ == version("vlp")


def test_what_is_installed_says_that_it_has_types() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for package in ("vlp", "pipelines"):
        assert "py.typed" in settings["tool"]["setuptools"]["package-data"][package]
        assert (REPOSITORY / package / "py.typed").is_file()


def test_a_name_that_vlp_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vlp' has no attribute 'laod'"):
        vlp.laod  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_mask_that_needs_calibration_names_the_function_that_does_it() -> None:
    import torch

    mask, inputs = ClusterMask(), MaskInputs.of(torch.rand(64, 49, 12))
    with pytest.raises(ValueError, match=r"calibrate .*vlp\.masking\.calibrate\(mask, \[inputs\]\)\.mask"):
        mask(inputs)
    calibrated = calibrate(mask, [inputs]).mask
    assert calibrated(inputs).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_a_class_defined_again_takes_its_own_place_and_no_other_does() -> None:
    registry = Registry()

    def define(qualified: str) -> type:
        return type("Mask", (), {"name": "mine", "__module__": "m", "__qualname__": qualified})

    registry.register(define("Mask"))
    again = registry.register(define("Mask"))
    assert registry == {"mine": again}
    with pytest.raises(ValueError, match="are both named 'mine'"):
        registry.register(define("Other"))
