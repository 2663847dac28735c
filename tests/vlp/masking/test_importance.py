"""Masks by attention and by other scores."""

import pytest
import torch
from torch import Generator, Tensor

from vlp.masking import MaskInputs
from vlp.masking.attention import AttentionMask
from vlp.masking.importance import ImportanceMask, centre_prior, edge_energy


@pytest.fixture
def attention() -> Tensor:
    """The map of which the released A-CLIP's choice is known: (2, 196)."""
    return torch.sin(0.37 * torch.arange(392, dtype=torch.float64)).abs().float().reshape(2, 196)


@pytest.fixture
def inputs(attention: Tensor) -> MaskInputs:
    return MaskInputs.of(torch.randn(2, 196, 12, generator=Generator().manual_seed(0)), attention=attention)


def test_the_patches_of_most_attention_are_kept(inputs: MaskInputs, attention: Tensor) -> None:
    masked = AttentionMask()(inputs)
    assert (~masked[0]).nonzero().flatten()[:12].tolist() == [3, 4, 5, 6, 11, 12, 13, 14, 20, 21, 22, 23]
    assert (~masked).sum(dim=1).tolist() == [98, 98]
    for row in range(2):
        assert attention[row][~masked[row]].min() >= attention[row][masked[row]].max()


def test_cells_of_most_attention_are_those_of_a_clip(inputs: MaskInputs) -> None:
    """Golden numbers of its release: 25 of 49 cells of 2 x 2 patches stay."""
    masked = AttentionMask(cell_size=2)(inputs)
    assert masked.sum(dim=1).tolist() == [96, 96]
    kept = (~masked[0]).nonzero().flatten()
    assert kept[:12].tolist() == [4, 5, 6, 7, 12, 13, 18, 19, 20, 21, 26, 27]
    assert AttentionMask(cell_size=2).num_visible(196) == 100


def test_importance_by_attention_is_the_attention_mask_and_its_opposite(inputs: MaskInputs) -> None:
    keep = ImportanceMask(score="attention")(inputs)
    hide = ImportanceMask(score="attention", hide="important")(inputs)
    assert torch.equal(keep, AttentionMask()(inputs))
    assert torch.equal(hide, ~keep)


def test_flat_patches_go_first_by_variance_and_by_edges() -> None:
    patches = torch.zeros(1, 9, 48)
    patches[0, 4:] = torch.randn(5, 48, generator=Generator().manual_seed(0))
    for score in ("variance", "edges"):
        masked = ImportanceMask(score=score, mask_ratio=4 / 9)(MaskInputs.of(patches))
        assert masked[0].tolist() == [True] * 4 + [False] * 5


def test_edges_see_the_order_of_pixels_that_the_variance_does_not() -> None:
    """Equal pixels, once sorted into two halves and once as a chessboard."""
    row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    halves, chess = (column >= 2).float(), ((row + column) % 2).float()
    patches = torch.stack([halves, chess]).reshape(1, 2, 16, 1).expand(-1, -1, -1, 3).flatten(2)
    assert patches.var(dim=2)[0, 0] == patches.var(dim=2)[0, 1]
    assert edge_energy(patches)[0].tolist() == pytest.approx([1 / 3, 2])


def test_the_centre_prior_keeps_the_middle() -> None:
    prior = centre_prior(36, torch.device("cpu")).reshape(6, 6)
    assert torch.equal(prior, prior.T)
    assert torch.equal(prior, prior.flip(0))
    masked = ImportanceMask(score="centre", mask_ratio=32 / 36)(MaskInputs.of(torch.zeros(1, 36, 3)))
    assert (~masked[0]).nonzero().flatten().tolist() == [14, 15, 20, 21]


def test_temperature_draws_in_proportion_to_the_exponential_of_the_scores() -> None:
    """One of three patches is hidden: the first draw of Gumbel top-k is the softmax."""
    attention = torch.tensor([[0.5, 0.3, 0.1]]).expand(40_000, -1)
    inputs = MaskInputs.of(torch.zeros(40_000, 3, 3), attention=attention)
    mask = ImportanceMask(score="attention", hide="important", mask_ratio=1 / 3, temperature=0.7)
    share = mask(inputs, generator=Generator().manual_seed(0)).float().mean(dim=0)
    expected = ((attention[0] - 0.3) / 0.2 / 0.7).softmax(dim=0)
    torch.testing.assert_close(share, expected, atol=0.012, rtol=0)


def test_of_a_mixture_one_part_is_strict_and_the_other_uniform(inputs: MaskInputs) -> None:
    strict = ImportanceMask(score="attention")(inputs)
    rows = MaskInputs.of(torch.zeros(4000, 196, 3), attention=inputs.attention[:1].expand(4000, -1))
    masked = ImportanceMask(score="attention", score_share=0.5)(rows, generator=Generator().manual_seed(0))
    assert masked.sum(dim=1).eq(98).all()
    lowest = inputs.attention[0].argsort()[:49]
    assert masked[:, lowest].all()
    others = torch.ones(196, dtype=torch.bool)
    others[lowest] = False
    share = masked[:, others].float().mean(dim=0)
    assert (share - 49 / 147).abs().max() < 5 * (2 / 9 / 4000) ** 0.5
    assert strict.sum() == 2 * 98


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"score_share": 1.1}, "score_share"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
    ],
)
def test_an_impossible_setting_is_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ImportanceMask(**settings)  # pyright: ignore[reportArgumentType]


def test_an_encoder_without_attention_is_named() -> None:
    with pytest.raises(ValueError, match="no class token"):
        AttentionMask()(MaskInputs.of(torch.zeros(1, 4, 3)))
