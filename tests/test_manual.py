"""What the manual shows works; tests/pipelines/test_plugins.py trains, sweeps and submits with its mask."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.commands.schemas import all_settings
from pipelines.config import open_clip
from pipelines.config.catalog import find
from pipelines.ingest.settings import COUNTERPARTS
from tests.manual import PAGES, blocks, section
from tests.paths import REPOSITORY
from tests.plugin_package import MASK, write_package
from vlp.evaluation.sets import KINDS
from vlp.masking import STRATEGIES, MaskInputs, visible_slots
from vlp.masking.strategy import uniform_noise
from vlp.objectives import OBJECTIVES
from vlp.text_masking import TEXT_MASKS


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


def test_the_command_of_the_manual_holds_the_new_mask_to_our_contracts(tmp_path: Path):
    (command,) = re.findall(r"^python -m (pytest .*?) +#", PAGES["plugins"], re.MULTILINE)
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


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"(?<![\w/])(?:conf|vlp|pipelines|tests|docs|docker|\.github)/[\w./-]*\w", PAGES[page])
    missing = {name for name in named if not (REPOSITORY / name).exists()} - {"docs/_build/index.html"}
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_page_or_a_picture_leads_there(page: str) -> None:
    folder = REPOSITORY if page == "README" else REPOSITORY / "docs"
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page])]
    local = [link for link in links if link and not link.startswith("http")]
    made = {f"reference/{name}.md" for name in ("settings", "commands", "library")}
    missing = [link for link in local if not (folder / link).exists() and not link.startswith("reference/")]
    assert not missing
    assert made >= {link for link in local if re.fullmatch(r"reference/[a-z]+\.md", link)}


@pytest.mark.parametrize("page", ["README", "concepts"])
def test_every_method_of_the_table_is_a_run_file(page: str) -> None:
    listed = set(re.findall(r"`conf/run/(\w+)\.yaml` \|", PAGES[page]))
    assert listed <= {file.stem for file in (REPOSITORY / "conf" / "run").glob("*.yaml")}


def test_every_run_file_is_a_method_of_the_table() -> None:
    listed = set(re.findall(r"`conf/run/(\w+)\.yaml` \|", PAGES["concepts"]))
    assert listed == {file.stem for file in (REPOSITORY / "conf" / "run").glob("*.yaml")}


def test_the_readme_is_short() -> None:
    assert len(PAGES["README"].splitlines()) <= 150


def test_lines_are_short_but_for_tables_and_code() -> None:
    long = [
        f"{page}: {line}"
        for page, text in PAGES.items()
        for line in re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S).splitlines()
        if len(line) > 130 and not line.startswith(("|", "$$"))
    ]
    assert not long


def test_a_mask_has_its_section_with_formula_and_picture() -> None:
    for name in STRATEGIES:
        text = section("masks", name)
        assert "$" in text, name
        assert "[2" in text or name == "importance", name
        assert f"images/mask_{name}.png" in text or name == "none"


def test_a_text_mask_has_its_section_with_formula_and_paper() -> None:
    for name in TEXT_MASKS.keys() - {"none"}:
        text = section("masks", f"text_mask: {name}")
        assert "$" in text, name
        assert f"[{TEXT_MASKS[name].paper}]" in text, name


def test_an_objective_has_its_section_with_formula_and_paper() -> None:
    for name in OBJECTIVES:
        assert "$$" in section("objectives", name)
        assert "arxiv.org" in section("objectives", name)


def test_python_code_is_the_same_wherever_it_is_shown() -> None:
    shown = [code for code in blocks("python") if "CheckerboardMask" in code or "vlp.load(" in code]
    assert len(shown) == 4
    assert len(set(shown)) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_manual_is_made_without_a_warning(tmp_path: Path) -> None:
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "reference" / "settings_mask.html").read_text()
    assert "anchor_ratio" in settings
    assert "vlp.masking.cluster.ClusterMask" in (tmp_path / "reference" / "library_masking.html").read_text()


PROSE = {name: re.sub(r"```.*?```", "", text, flags=re.DOTALL) for name, text in PAGES.items()} | {
    "open_clip": "\n".join([*open_clip.SETTINGS.values(), *open_clip.REMEDIES.values()]),
    "img2dataset": "\n".join(COUNTERPARTS.values()),
}


@pytest.mark.parametrize("page", PROSE)
def test_every_setting_that_is_named_is_one(page: str) -> None:
    settings = all_settings()
    firsts = "|".join({entry.key for entry in settings})
    for code in re.findall(r"`([^`]+)`", PROSE[page]):
        for key in re.findall(rf"(?:^|\s)((?:{firsts})(?:\.[a-z_]+)+)(?=$|[=:\s,])", code):
            named = key.removesuffix(".name")  # which of several a component is
            if key.startswith("evaluation.") and key.split(".")[1] in KINDS:
                named = ".".join(key.split(".")[:2])  # the rest is the name of a set
            assert find(named, settings), key
