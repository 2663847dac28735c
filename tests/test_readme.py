"""What the README shows works; tests/pipelines/test_plugins.py trains, sweeps and submits with its mask."""

import re
import subprocess
import sys
from pathlib import Path

import torch

from tests.paths import REPOSITORY
from tests.plugin_package import MASK, README, write_package
from vlp.masking import STRATEGIES, MaskInputs, visible_slots
from vlp.masking.strategy import uniform_noise


def test_the_example_of_a_new_mask_hides_every_second_patch_of_each_image():
    before = dict(STRATEGIES)
    try:
        exec(compile(MASK, "masks.py", "exec"), {"__name__": __name__})
        mask = STRATEGIES["checkerboard"]()
        inputs = MaskInputs.of(torch.rand(16, 49, 12))
        generator = torch.Generator().manual_seed(0)
        masked = mask(inputs, generator=generator)
        assert sorted(set(masked.sum(dim=1).tolist())) == [24, 25]
        assert not (masked[:, 1:] & masked[:, :-1]).any()
        slots = visible_slots(masked, mask.num_visible(49), uniform_noise(inputs, generator))
        assert slots.keep_indices.shape == (16, 25)
    finally:
        STRATEGIES.clear()
        STRATEGIES.update(before)


def test_the_command_of_the_readme_holds_the_new_mask_to_our_contracts(tmp_path: Path):
    (command,) = re.findall(r"^python -m (pytest .*?) +#", README, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "-p", "no:cacheprovider"],
        cwd=write_package(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (passed,) = re.findall(r"^=* ?(\d+) passed, \d+ deselected", done.stdout, re.MULTILINE)
    assert int(passed) >= 10


def test_a_mask_that_breaks_a_contract_is_found(tmp_path: Path):
    masks = write_package(tmp_path) / "my_package" / "masks.py"
    masks.write_text(masks.read_text().replace("(num_patches + 1) // 2", "num_patches"))
    command = [
        "pytest",
        "-p",
        "my_package.masks",
        "--pyargs",
        "vlp.contracts",
        "-k",
        "checkerboard and bound",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *command, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "test_the_bound_is_met_at_some_time_in_training[checkerboard]" in done.stdout


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"(?:conf|vlp|pipelines|tests|\.github)/[\w./-]*\w", README)
    missing = {name for name in named if not (REPOSITORY / name).exists()}
    assert not missing


def test_every_method_of_the_table_is_a_run_file_and_every_run_file_is_a_method():
    listed = set(re.findall(r"`conf/run/(\w+)\.yaml` \|", README))
    assert listed == {file.stem for file in (REPOSITORY / "conf" / "run").glob("*.yaml")}
