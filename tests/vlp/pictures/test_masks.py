"""The mask panel shows visible patches untouched and hidden patches not at all."""

import numpy as np
import pytest
import torch

from vlp.masking.strategy import Choice
from vlp.pictures.masks import (
    ANCHOR,
    HIDDEN,
    choice_panel,
    cluster_picture,
    mask_panel,
    masked_picture,
    patch_grid,
    to_picture,
)


def pixels_by_patch(picture, columns, size):
    """(N, size, size, 3), row by row from the top left."""
    pixels = np.asarray(picture)
    rows = pixels.shape[0] // size
    return pixels.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)


@pytest.fixture
def image():
    return torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masked():
    return torch.rand(24, generator=torch.Generator().manual_seed(1)) < 0.5


@pytest.mark.parametrize("scale", [1, 3])
def test_visible_patches_equal_the_image_and_hidden_ones_show_nothing(image, masked, scale):
    picture = masked_picture(image, masked, scale=scale)
    source = (image * 255).round().byte().permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
    drawn = pixels_by_patch(picture, 6, 8 * scale)
    expected = pixels_by_patch(source, 6, 8 * scale)
    assert np.array_equal(drawn[~masked.numpy()], expected[~masked.numpy()])
    assert (drawn[masked.numpy()] == HIDDEN).all()


def test_anchors_are_outlined_within_their_patch(image, masked):
    plain = pixels_by_patch(masked_picture(image, masked), 6, 8)
    drawn = pixels_by_patch(masked_picture(image, masked, anchors=torch.tensor([7, 20])), 6, 8)
    others = [i for i in range(24) if i not in (7, 20)]
    assert np.array_equal(drawn[others], plain[others])
    border = np.ones((8, 8), dtype=bool)
    border[1:-1, 1:-1] = False
    assert (drawn[[7, 20]][:, border] == ANCHOR).all()
    assert np.array_equal(drawn[[7, 20]][:, ~border], plain[[7, 20]][:, ~border])


def test_panel_holds_every_picture(image, masked):
    """Images and masked images lie in the sheet, one column per method, at one row per image."""
    images = torch.stack([image, image.flip(2)])
    masks = {
        "random": torch.stack([masked, ~masked]),
        "a method with a long name": torch.stack([~masked, masked]),
    }
    sheet = np.asarray(mask_panel(images, masks, anchors={"random": torch.tensor([[0], [1]])}))
    places = [
        [
            place(sheet, np.asarray(masked_picture(image, hidden, anchors=anchor)))
            for image, hidden, anchor in column
        ]
        for column in (
            [(image, torch.zeros(24, dtype=torch.bool), None) for image in images],
            [(images[i], masks["random"][i], torch.tensor([i])) for i in range(2)],
            [(images[i], masks["a method with a long name"][i], None) for i in range(2)],
        )
    ]
    tops = [[top for top, _ in column] for column in places]
    lefts = [[left for _, left in column] for column in places]
    assert tops[0] == tops[1] == tops[2]
    assert tops[0] == sorted(set(tops[0]))
    assert [len(set(left)) for left in lefts] == [1, 1, 1]
    assert lefts == sorted(lefts)


def place(sheet, picture):
    """Top left corner of the one place where a picture lies in the sheet."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    corner = (windows[..., 0, 0, :] == picture[0, 0]).all(axis=-1)
    found = [(t, left) for t, left in np.argwhere(corner) if np.array_equal(windows[t, left], picture)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("num_patches", [23, 25, 48 * 32 * 2])
def test_patches_that_do_not_tile_are_an_error(num_patches):
    with pytest.raises(ValueError, match="32 x 48"):
        patch_grid(32, 48, num_patches)


def test_a_choice_is_shown_from_its_anchors_to_what_the_encoder_sees():
    """A patch of no cluster looks as in the image; two of one cluster are painted alike, and have an outline
    around both."""
    image = torch.full((3, 8, 8), 0.5)
    clusters = torch.tensor([0, 1, 0, -1])
    painted = np.asarray(cluster_picture(image, clusters))
    upper, right, lower = painted[1:3, 1:3], painted[1:3, 5:7], painted[5:7, 1:3]
    assert np.array_equal(upper, lower)
    assert not np.array_equal(upper, right)
    assert np.array_equal(painted[4:, 4:], np.asarray(to_picture(image))[4:, 4:])
    assert np.array_equal(painted[3:5, 1:3], upper), "there is nothing between the two"
    assert not np.array_equal(painted[:1, 1:3], upper[:1])
    anchored = np.asarray(cluster_picture(image, clusters, anchors=torch.tensor([1])))
    assert {tuple(pixel) for pixel in anchored[0, 4:]} == {ANCHOR}
    choice = Choice(clusters[None] >= 0, torch.tensor([[0, 1]]), clusters[None])
    whole = choice_panel(image[None], choice, ~choice.masked, image_scale=8)
    plain = choice_panel(image[None], Choice(choice.masked), ~choice.masked, image_scale=8)
    assert whole.width > 1.8 * plain.width, "four columns, and two of a mask without anchors"
