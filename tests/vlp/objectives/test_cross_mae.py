"""CrossMAE's decoder (arXiv:2401.14391), against PyTorch's attention and by what may depend on what."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.encoders.cross_attention import CrossAttention
from vlp.encoders.vit import ViTConfig
from vlp.masking import MaskStrategy, Slots
from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.mae import CrossMAE, MAEConfig, patch_errors

VIT = ViTConfig(image_size=64, patch_size=8, width=32, depth=2, num_heads=2)
MASKS = [RandomMask(mask_ratio=0.75), ClusterMask(threshold=0.3, min_mask_ratio=0.4)]


def build(mask: MaskStrategy, **settings: float) -> CrossMAE:
    torch.manual_seed(0)
    config = MAEConfig(decoder="cross", decoder_width=32, decoder_depth=2, decoder_heads=2, **settings)  # pyright: ignore[reportArgumentType]
    model = config.build(VIT.build(), mask, vocabulary=Vocabulary(8, 5))
    assert isinstance(model, CrossMAE)
    return model


@pytest.fixture
def images() -> Tensor:
    coarse = torch.randn(4, 3, 8, 8, generator=Generator().manual_seed(0))
    return F.interpolate(coarse, size=(64, 64), mode="bilinear")


def chosen(model: CrossMAE, images: Tensor) -> Slots:
    return model.choose_visible(images, progress=0.0, generator=Generator().manual_seed(1))


@torch.no_grad()
def test_cross_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    mine, theirs = CrossAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([mine.q.weight, mine.kv.weight]))
    theirs.in_proj_bias.copy_(torch.cat([mine.q.bias, mine.kv.bias]))
    theirs.out_proj.load_state_dict(mine.proj.state_dict())
    x, memory = torch.randn(3, 5, 32), torch.randn(3, 7, 32)
    is_padding = torch.arange(7) >= torch.tensor([[7], [4], [1]])
    expected, _ = theirs(x, memory, memory, key_padding_mask=is_padding)
    torch.testing.assert_close(mine(x, memory, ~is_padding[:, None, None]), expected)


@torch.no_grad()
@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
def test_a_patch_is_rebuilt_alike_whichever_others_are(mask: MaskStrategy, images: Tensor) -> None:
    model = build(mask).eval()
    slots = chosen(model, images)
    states = model.image_encoder(images, slots)
    whole = model.decode(states, slots)
    places = torch.tensor([[3, 60, 17]]).expand(4, -1)
    some = model.decode_at(places, states, slots)
    torch.testing.assert_close(some, whole[:, places[0]])


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_loss_is_the_mean_over_a_share_of_what_is_hidden(
    mask: MaskStrategy, share: float, images: Tensor
) -> None:
    model = build(mask, predicted_ratio=share)
    slots = chosen(model, images)
    batch = Batch(images, torch.zeros(4, 2, dtype=torch.int64), torch.ones(4, dtype=torch.int64))
    model.draws = torch.rand(4, 64, generator=Generator().manual_seed(2))
    outputs = model.encode(batch, slots)
    errors, is_hidden = outputs
    at_least = 64 - mask.num_visible(64)
    assert errors.shape == (4, round(share * at_least))
    assert is_hidden.all()
    all_errors = patch_errors(model.decode(model.image_encoder(images, slots), slots), model.targets(images))
    for row, masked in zip(range(4), slots.masked(64), strict=True):
        hidden = all_errors[row][masked]
        nearest = (errors[row][:, None] - hidden).abs().min(dim=1)
        assert nearest.values.max() < 1e-5
        assert len(set(nearest.indices.tolist())) == errors.shape[1]
    torch.testing.assert_close(model.loss(outputs, batch, slots).loss, errors.mean())


def test_every_hidden_patch_is_rebuilt_equally_often(images: Tensor) -> None:
    model = build(RandomMask(mask_ratio=0.75), predicted_ratio=0.25)
    masked = torch.zeros(2000, 64, dtype=torch.bool)
    masked[:, 16:] = True
    model.draws = torch.rand(2000, 64, generator=Generator().manual_seed(0))
    counts = torch.bincount(model._places(masked).flatten(), minlength=64)
    assert not counts[:16].any()
    assert (counts[16:] - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_a_share_is_refused_where_all_is_rebuilt_together() -> None:
    with pytest.raises(ValueError, match=r"predicted_ratio is 0.5 and decoder joint, .*; set decoder=cross"):
        MAEConfig(predicted_ratio=0.5)
