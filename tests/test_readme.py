"""What the README shows works."""

import importlib.util
import re
import sys

import torch

from tests.paths import REPOSITORY
from vlp.masking import STRATEGIES, MaskInputs, visible_slots
from vlp.masking.strategy import uniform_noise

README = (REPOSITORY / "README.md").read_text()


def test_the_example_of_a_new_mask_hides_every_second_patch_of_each_image(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "checkerboard.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("checkerboard", file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["checkerboard"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        mask = STRATEGIES["checkerboard"]()
        inputs = MaskInputs.of(torch.rand(16, 49, 12))
        generator = torch.Generator().manual_seed(0)
        masked = mask(inputs, generator=generator)
        assert sorted(set(masked.sum(dim=1).tolist())) == [24, 25]
        assert not (masked[:, 1:] & masked[:, :-1]).any()
        slots = visible_slots(masked, mask.num_visible(49), uniform_noise(inputs, generator))
        assert slots.keep_indices.shape == (16, 25)
    finally:
        STRATEGIES.pop("checkerboard", None)
        del sys.modules["checkerboard"]


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"(?:conf|vlp|pipelines|tests|\.github)/[\w./-]*\w", README)
    missing = {name for name in named if not (REPOSITORY / name).exists()} - {"vlp/masking/checkerboard.py"}
    assert not missing


def test_every_method_of_the_table_is_a_run_file_and_every_run_file_is_a_method():
    listed = set(re.findall(r"`conf/run/(\w+)\.yaml` \|", README))
    assert listed == {file.stem for file in (REPOSITORY / "conf" / "run").glob("*.yaml")}
