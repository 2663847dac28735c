"""The page of `vlp masks`, in a real browser: what a slider is moved to is what is shown."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.pipelines.training.test_mask_study import SMALL, bits, photo, read_page, vlp_masks
from tests.servers.browser import CHROMIUM, Page, browsing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # on a busy machine
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for i in range(3):
        photo(i).save(folder / f"{i}.png")
    vlp_masks(folder, *SMALL, "mask.name=cluster", "mask.feature=mix", "-o", folder / "out")
    return folder / "out" / "masks.html"


@pytest.fixture
def page(file: Path, tmp_path: Path) -> Iterator[Page]:
    with browsing(tmp_path) as page:
        page.open(file.as_uri())
        page.until("document.body?.dataset.ready")
        yield page


def dark(page: Page, image: int) -> Tensor:
    """(64,) bool: the patches of an image that are painted over, by the colour of their middles."""
    found = page.ask(
        f"""(() => {{
            const canvas = document.querySelectorAll("tbody canvas")[{image}], step = canvas.width / 8;
            const context = canvas.getContext("2d"), cover = ["52,55,62", "154,163,178"];
            return JSON.stringify(Array.from({{length: 64}}, (_, patch) => cover.includes(
                context.getImageData((patch % 8 + 0.5) * step, (Math.floor(patch / 8) + 0.5) * step, 1, 1)
                    .data.slice(0, 3).join())));
        }})()"""
    )
    return torch.tensor(json.loads(found))


def turn(page: Page, slider: str, presses: int) -> None:
    page.ask(f"document.querySelector('input[aria-label={json.dumps(slider)}]').focus()")
    for _ in range(presses):
        page.press("ArrowRight", 39)


def test_the_sliders_choose_among_the_masks_of_the_page(page: Page, file: Path) -> None:
    (row,) = read_page(file)["rows"]
    first = 2 * 3  # the page opens in the middle of the training
    seen = [dark(page, image) for image in range(3)]
    assert all(torch.equal(bits(row, "hidden", first, image), seen[image]) for image in range(3))
    for slider, presses in (
        ("anchor ratio", 1),
        ("target ratio", 3),
        ("alpha: training done", 1),
        ("seed", 2),
    ):
        turn(page, slider, presses)
    _, targets, moments, seeds = row["sizes"]
    setting = (1 * targets + 3) * moments + 3
    place = setting * seeds + 2
    moved = [dark(page, image) for image in range(3)]
    assert all(torch.equal(bits(row, "hidden", place, image), moved[image]) for image in range(3))
    assert not any(torch.equal(one, other) for one, other in zip(seen, moved, strict=True))
    page.shows("0.01", "0.3", "75%", "+ 2", f"AvgDist {row['distances'][setting]:.1f} px")


def test_clusters_and_what_cannot_be_are_shown(page: Page) -> None:
    page.click("label", "anchors and clusters")
    page.until("document.querySelector('[name=view]:checked').value == 'clusters'")
    assert not dark(page, 0).any(), "clusters are shone through"
    turn(page, "anchor ratio", 4)
    turn(page, "target ratio", 1)
    page.shows("target_mask_ratio must be above anchor_ratio (0.2)")
    assert page.ask("[...document.querySelectorAll('tbody canvas')].every(one => one.offsetParent === null)")


def test_the_page_needs_nothing_beside_it(file: Path) -> None:
    text = file.read_text()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert text.count("<script>") == 1
