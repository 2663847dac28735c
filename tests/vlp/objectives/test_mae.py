"""MAE, against the release's numbers (arXiv:2111.06377) and Hugging Face's model."""

import pytest
import torch
from torch import Generator, Tensor

from vlp.encoders.patches import patchify, sincos_positions, unpatchify
from vlp.encoders.vit import ViTConfig
from vlp.losses.reconstruction import masked_mean
from vlp.masking import MaskStrategy, Slots, visible_slots
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.masking.strategy import hide_highest
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.mae import MAE, MAEConfig, patch_errors

VIT = ViTConfig(
    image_size=64, width=48, depth=2, num_heads=4, positions="sincos", pre_norm=False, norm_eps=1e-6
)
RESTORE = [12, 0, 8, 4, 6, 9, 1, 3, 7, 14, 11, 2, 15, 10, 5, 13]


def build(
    mask: MaskStrategy = RandomMask(mask_ratio=0.75),  # noqa: B008
    *,
    vit: ViTConfig = VIT,
    norm_pix_loss: bool = False,
) -> MAE:
    torch.manual_seed(0)
    config = MAEConfig(decoder_width=32, decoder_depth=2, decoder_heads=4, norm_pix_loss=norm_pix_loss)
    return config.build(vit.build(), mask, vocabulary=Vocabulary(8, 5))


def golden_images(num_images: int, size: int) -> Tensor:
    n, c, i, j = torch.meshgrid(
        *(torch.arange(s, dtype=torch.float64) for s in (num_images, 3, size, size)), indexing="ij"
    )
    wave = torch.sin(0.013 * (i + 1) * (c + 1) + 0.029 * (j + 1) + 0.7 * n)
    return (wave * torch.cos(0.017 * j * (n + 1) - 0.011 * i)).float()


def golden_noise() -> Tensor:
    k = torch.arange(1, 33, dtype=torch.float64)
    return (torch.sin(12.9898 * k) * 43758.5453).remainder(1).view(2, 16)


@pytest.mark.parametrize(("norm_pix_loss", "loss"), [(False, 0.2621423602104187), (True, 1.003435492515564)])
def test_the_loss_is_that_of_the_release(norm_pix_loss: bool, loss: float) -> None:
    model = build(vit=ViTConfig(image_size=224, width=16, depth=1, num_heads=2), norm_pix_loss=norm_pix_loss)
    k = torch.arange(4 * 196 * 768, dtype=torch.float64)
    predictions = (0.1 * torch.sin(0.01 * k)).view(4, 196, 768).float()
    masked = (torch.arange(196) % 4 != 0).expand(4, -1)
    errors = patch_errors(predictions, model.targets(golden_images(4, 224)))
    assert masked_mean(errors, masked).item() == pytest.approx(loss, rel=1e-5)


def test_the_visible_patches_are_those_with_the_least_noise() -> None:
    """The release keeps a prefix of a shuffle; here the same patches are kept in ascending order."""
    noise = golden_noise()
    assert noise[0, :4].tolist() == pytest.approx([0.92169040, 0.05721817, 0.55822259, 0.37373373], abs=1e-7)
    assert noise[0].argsort().argsort().tolist() == RESTORE
    assert noise.argsort(dim=1)[:, :4].tolist() == [[1, 6, 11, 7], [10, 7, 11, 15]]
    masked = hide_highest(noise, RandomMask(mask_ratio=0.75).num_visible(16))
    slots = visible_slots(masked, 4)
    assert slots.keep_indices.tolist() == [[1, 6, 7, 11], [7, 10, 11, 15]]
    assert torch.equal(slots.masked(16), masked)


@pytest.mark.parametrize(
    ("width", "total"),
    [(768, 69594.49385866919), (512, 46340.33310267379), (1024, 92849.19791831236)],
)
def test_positions_are_those_of_the_release(width: int, total: float) -> None:
    table = sincos_positions(196, width)
    assert table.shape == (1, 197, width)
    assert table.double().sum().item() == pytest.approx(total, rel=1e-6)
    table = table[0]
    assert table[0].abs().max() == 0
    assert table[2, 0].item() == pytest.approx(0.8414709848)
    assert table[15, 0].item() == 0
    assert table[16, width // 2].item() == pytest.approx(0.8414709848)


def test_patches_go_back_to_the_image_they_came_from() -> None:
    images = golden_images(2, 64)
    assert torch.equal(unpatchify(patchify(images, 16), 16), images)


def test_fixed_positions_are_neither_trained_nor_saved() -> None:
    model = build()
    assert not [name for name, _ in model.named_parameters() if "positions" in name]
    assert not [name for name in model.state_dict() if "positions" in name]


@torch.no_grad()
def test_hidden_pixels_change_no_prediction() -> None:
    model, images = build().eval(), golden_images(2, 64)
    masked = torch.rand(2, 16, generator=Generator().manual_seed(0)).argsort(dim=1) >= 4
    slots = visible_slots(masked, 4)
    pixels = patchify(images, 16)
    pixels[masked] = 100.0
    before, after = (
        model.decode(model.image_encoder(x, slots), slots) for x in (images, unpatchify(pixels, 16))
    )
    torch.testing.assert_close(before, after)


@torch.no_grad()
def test_a_padded_batch_gives_the_predictions_of_each_image_alone() -> None:
    model, images = build().eval(), golden_images(3, 64)
    noise = torch.rand(3, 16, generator=Generator().manual_seed(0))
    masked = noise.argsort(dim=1).argsort(dim=1) >= torch.tensor([2, 5, 8])[:, None]
    slots = visible_slots(masked, 8, noise)
    together = model.decode(model.image_encoder(images, slots), slots)
    for i, count in enumerate((2, 5, 8)):
        alone = visible_slots(masked[i : i + 1], count)
        expected = model.decode(model.image_encoder(images[i : i + 1], alone), alone)
        torch.testing.assert_close(together[i : i + 1], expected, atol=1e-5, rtol=1e-5)


def test_patches_that_were_cut_away_are_rebuilt_too() -> None:
    keep = torch.tensor([[0, 3, 5], [1, 2, 4]])
    padding = torch.tensor([[False, False, True], [False, False, False]])
    expected = [[False, True, True, False, True, True], [True, False, False, True, False, True]]
    assert Slots(keep, padding).masked(6).tolist() == expected
    expected[0][5] = False
    assert Slots(keep, None).masked(6).tolist() == expected


@pytest.mark.parametrize("mask", [NoMask(), RandomMask(mask_ratio=0.0)])
def test_a_mask_that_hides_nothing_is_an_error(mask: MaskStrategy) -> None:
    with pytest.raises(ValueError, match=f"mae rebuilds hidden patches, but mask {mask.name} hides none"):
        build(mask)


def test_weights_are_initialized_as_in_the_release() -> None:
    model = build(vit=ViTConfig(image_size=64, width=256, depth=1, num_heads=4))
    encoder: torch.nn.Module = model.image_encoder
    weight = encoder.get_parameter("patch_embed.proj.weight")
    assert weight.abs().max().item() == pytest.approx((6 / (768 + 256)) ** 0.5, rel=0.01)
    weight = encoder.get_parameter("blocks.0.attn.qkv.weight")
    assert weight.abs().max().item() == pytest.approx((6 / (4 * 256)) ** 0.5, rel=0.01)
    assert encoder.get_parameter("class_token").std().item() == pytest.approx(0.02, rel=0.2)
    assert all((p == 0).all() for n, p in model.named_parameters() if n.endswith("bias") and "proj" not in n)


def hugging_face_names(model: MAE) -> dict[str, Tensor]:
    """Our weights under the names of transformers.ViTMAEForPreTraining."""
    state, renamed = model.state_dict(), {}
    blocks = [(f"image_encoder.blocks.{i}", f"vit.layers.{i}") for i in range(2)]
    blocks += [(f"decoder.{i}", f"decoder.decoder_layers.{i}") for i in range(2)]
    parts = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    names = {
        "image_encoder.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "image_encoder.norm": "vit.layernorm",
        "to_decoder": "decoder.decoder_embed",
        "decoder.2": "decoder.decoder_norm",
        "to_pixels": "decoder.decoder_pred",
    }
    names |= {f"{ours}.{a}": f"{theirs}.{b}" for ours, theirs in blocks for a, b in parts.items()}
    for kind in ("weight", "bias"):
        renamed |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for ours, theirs in names.items()}
        for ours, theirs in blocks:
            thirds = state[f"{ours}.attn.qkv.{kind}"].chunk(3)
            for part, third in zip("qkv", thirds, strict=True):
                renamed[f"{theirs}.attention.{part}_proj.{kind}"] = third
    renamed["vit.embeddings.cls_token"] = state["image_encoder.class_token"]
    renamed["decoder.mask_token"] = state["mask_token"][None, None]
    renamed["vit.embeddings.position_embeddings"] = sincos_positions(16, 48)
    renamed["decoder.decoder_pos_embed"] = sincos_positions(16, 32)
    return renamed


@torch.no_grad()
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_the_model_is_that_of_hugging_face(norm_pix_loss: bool) -> None:
    transformers = pytest.importorskip("transformers")
    oracle = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            image_size=64,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=192,
            decoder_hidden_size=32,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=128,
            layer_norm_eps=1e-6,
            norm_pix_loss=norm_pix_loss,
        )
    ).eval()
    model = build(norm_pix_loss=norm_pix_loss).eval()
    for parameter in model.parameters():  # biases that matter
        parameter.add_(0.05 * torch.randn(parameter.shape))
    oracle.load_state_dict(hugging_face_names(model))
    images, noise = golden_images(2, 64), golden_noise().float()
    expected = oracle(images, noise=noise)
    slots = visible_slots(expected.mask.bool(), 4)
    predictions = model.decode(model.image_encoder(images, slots), slots)
    torch.testing.assert_close(predictions, expected.logits, atol=1e-5, rtol=1e-5)
    loss = masked_mean(patch_errors(predictions, model.targets(images)), expected.mask.bool())
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)


def test_any_mask_trains() -> None:
    model = build(ClusterMask(threshold=0.3)).train()
    batch = Batch(golden_images(4, 64), torch.zeros(4, 2, dtype=torch.int64), torch.full((4,), 2))
    step = model(batch, progress=0.0, generator=Generator().manual_seed(0))
    assert step.loss.isfinite()
