"""Fine-tuning: images and targets as timm mixes them, what the classifier reads, and its first weights."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from torch import Generator

from vlp.encoders import ImageEncoderConfig
from vlp.encoders.beit import BEiTConfig
from vlp.encoders.swin import SwinConfig
from vlp.encoders.vit import ViTConfig
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.fine_tuning import FineTuning, FineTuningConfig
from vlp.objectives.mae import MAEConfig
from vlp.objectives.mixing import Mix, box_around, draw_mix, mixed_images, soft_targets
from vlp.objectives.simmim import SimMIMConfig
from vlp.training.optim import AdamWConfig, build_optimizer
from vlp.training.step import update
from vlp.weights.initialization import initialize

K, B, SIZE = 7, 8, 32
SIZES: dict[str, Any] = {"image_size": SIZE, "patch_size": 8, "width": 16, "depth": 3, "num_heads": 2}
MAE_VIT = ViTConfig(**SIZES, positions="sincos", pre_norm=False, norm_eps=1e-6)
TUNED_VIT = replace(MAE_VIT, positions="learned", final_norm=False)
PAIRED = [0, 2, 4, 6, 7, 5, 3, 1]
"""An order in which timm's pairs, the first with the last, are our neighbours."""
ks_2samp: Any = stats.ks_2samp  # says nothing of its result


def build(encoder: ImageEncoderConfig = TUNED_VIT, **settings: Any) -> FineTuning:
    torch.manual_seed(0)
    vocabulary = Vocabulary(K + 2, 3, (K, K + 1))
    return FineTuningConfig(**settings).build(encoder.build(), NoMask(), vocabulary=vocabulary)


@pytest.fixture
def batch() -> Batch:
    generator = Generator().manual_seed(0)
    labels = torch.randint(0, K, (B,), generator=generator)
    tokens = torch.stack([torch.full((B,), K), labels, torch.full((B,), K + 1)], dim=1)
    return Batch(torch.randn(B, 3, SIZE, SIZE, generator=generator), tokens, torch.full((B,), 3))


class SameDraws(Mixup):
    """timm's, of numbers that were drawn before."""

    def __init__(self, own: float, *, is_cut: bool) -> None:
        super().__init__(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=K)
        self.drawn = own, is_cut

    def _params_per_batch(self) -> tuple[float, bool]:
        return self.drawn


def by_timm(batch: Batch, own: float, middle: tuple[int, int] | None, patch: pytest.MonkeyPatch) -> Any:
    """Images and targets, in the order of the batch."""
    if middle is not None:
        drawn = iter(middle)
        patch.setattr(np.random, "randint", lambda low, high, size: next(drawn))
    mixup = SameDraws(own, is_cut=middle is not None)
    mixed = mixup(batch.images[PAIRED].clone(), batch.tokens[PAIRED, 1])
    back = torch.tensor(PAIRED).argsort()
    return [part[back] for part in mixed]


@pytest.mark.parametrize("own", [0.3, 0.5, 0.95])
@pytest.mark.parametrize("middle", [None, (16, 16), (1, 30)], ids=["mixup", "box", "box at the edge"])
def test_images_and_targets_are_those_of_timm_on_equal_draws(
    own: float, middle: tuple[int, int] | None, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, targets = by_timm(batch, own, middle, monkeypatch)
    mix = Mix(own)
    if middle is not None:
        box = box_around(*middle, 1 - own, height=SIZE, width=SIZE)
        mix = Mix(1 - (box.bottom - box.top) * (box.right - box.left) / SIZE**2, box)
    torch.testing.assert_close(mixed_images(batch.images, mix), images)
    found = soft_targets(batch.tokens[:, 1], K, own=mix.own, smoothing=0.1)
    torch.testing.assert_close(found, targets)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(B))


def test_what_is_drawn_is_distributed_as_timm_draws_it() -> None:
    rng = np.random.default_rng(0)

    def drawn(mixup: float = 0.8, cutmix: float = 1.0) -> Mix:
        return draw_mix(rng, mixup=mixup, cutmix=cutmix, height=SIZE, width=SIZE)

    found = [drawn() for _ in range(4000)]
    averaged = [mix.own for mix in found if mix.box is None]
    assert abs(len(averaged) / 4000 - 0.5) < 4 * (0.25 / 4000) ** 0.5
    np.random.seed(0)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0)
    expected = [mixup._params_per_batch() for _ in range(4000)]
    assert ks_2samp(averaged, [own for own, is_cut in expected if not is_cut]).pvalue > 1e-3
    rows = [mix.box.top + mix.box.bottom for mix in found if mix.box is not None]
    assert abs(np.mean(rows) / 2 - SIZE / 2) < 1  # boxes lie anywhere
    assert all(drawn(mixup=0.0).box for _ in range(20))
    assert not any(drawn(cutmix=0.0).box for _ in range(20))
    assert drawn(mixup=0.0, cutmix=0.0) == Mix(1.0)


def test_the_loss_is_timms_of_the_mixed_batch(batch: Batch) -> None:
    model = build(head_std=0.5).train()
    generator = Generator().manual_seed(3)
    mixed = model.mix(batch, generator)
    logits = model.classify(model.features(mixed.images))
    expected = SoftTargetCrossEntropy()(logits, mixed.targets)
    found = model(batch, progress=0.0, generator=generator)
    torch.testing.assert_close(found.loss, expected)
    assert not torch.equal(mixed.images, batch.images)
    assert torch.equal(model.eval().mix(batch, generator).images, batch.images)


def test_a_step_that_is_taken_again_mixes_alike(batch: Batch) -> None:
    """Saved after two steps and taken up by a new model, in another state of every generator."""

    def train(model: FineTuning, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
        losses = []
        for step in steps:
            generator = Generator().manual_seed(step)
            loss = model(batch, progress=0.0, generator=generator).loss
            update(model, loss, optimizer, lr=1e-2, max_norm=None)
            losses.append(loss.item())
        return losses

    encoder = replace(TUNED_VIT, drop_path=0.5)
    whole, resumed = build(encoder).train(), build(encoder).train()
    optimizers = [build_optimizer(model, AdamWConfig()) for model in (whole, resumed)]
    first = train(whole, optimizers[0], range(2))
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    expected = train(whole, optimizers[0], range(2, 4))
    np.random.seed(9)
    torch.manual_seed(9)
    assert train(resumed, optimizers[1], range(2, 4)) == expected
    assert len({*first, *expected}) == 4


SWIN = SwinConfig(image_size=32, patch_size=4, width=8, depths=(2, 2), num_heads=(1, 2), window_size=4)
NORMED = replace(TUNED_VIT, final_norm=True)


@pytest.mark.parametrize(("encoder", "pool"), [(TUNED_VIT, "mean"), (NORMED, "class_token"), (SWIN, "mean")])
@torch.no_grad()
def test_the_classifier_reads_what_the_release_reads(
    encoder: ImageEncoderConfig, pool: str, batch: Batch
) -> None:
    """MAE: norm of the mean, or the normalized class token; Swin: mean of the normalized states."""
    model = build(encoder, pool=pool).eval()
    states = model.image_encoder(batch.images)
    pooled = states[:, 0] if pool == "class_token" else states[:, 1:].mean(dim=1)
    if not encoder.final_norm:
        mean, variance = pooled.mean(dim=1, keepdim=True), pooled.var(dim=1, keepdim=True, correction=0)
        pooled = (pooled - mean) / (variance + 1e-6).sqrt()
    torch.testing.assert_close(model.features(batch.images), pooled)
    assert model.classify(pooled).shape == (B, K)
    has_norm = [name for name, _ in model.named_parameters() if name.startswith("norm.")]
    assert bool(has_norm) != encoder.final_norm
    weight = build(replace(TUNED_VIT, width=400), head_std=2e-5).classifier.weight
    assert weight.std().item() == pytest.approx(2e-5, rel=0.1)
    assert model.classifier.bias.count_nonzero() == 0


@torch.no_grad()
def test_maes_encoder_is_tuned_without_its_norm_and_with_learned_positions(batch: Batch) -> None:
    torch.manual_seed(1)
    settings = MAEConfig(decoder_width=16, decoder_depth=1, decoder_heads=2)
    mae = settings.build(MAE_VIT.build(), RandomMask(), vocabulary=Vocabulary(0, 0)).eval()
    mae.image_encoder.get_parameter("norm.weight").uniform_(0.5, 2)
    tuned = build(TUNED_VIT).eval()
    initialize(tuned, mae.state_dict(), part="image_encoder")
    encoder: Any = mae.image_encoder
    expected = encoder(batch.images)
    torch.testing.assert_close(encoder.norm(tuned.image_encoder(batch.images)), expected)
    assert tuned.image_encoder.get_parameter("positions").requires_grad
    larger = build(replace(TUNED_VIT, image_size=48))
    initialize(larger, mae.state_dict(), part="image_encoder")
    with pytest.raises(ValueError, match="of another shape"):
        initialize(build(replace(TUNED_VIT, width=32)), mae.state_dict(), part="image_encoder")
    with pytest.raises(ValueError, match="the model needs"):
        initialize(build(replace(TUNED_VIT, depth=4)), mae.state_dict(), part="image_encoder")


@torch.no_grad()
def test_simmims_one_table_becomes_one_of_each_block(batch: Batch) -> None:
    torch.manual_seed(1)
    beit = BEiTConfig(**SIZES)
    simmim = SimMIMConfig().build(beit.build(), RandomMask(), vocabulary=Vocabulary(0, 0)).eval()
    table = "relative_positions.relative_position_bias_table"
    simmim.image_encoder.get_parameter(table).normal_()
    expected = simmim.image_encoder(batch.images)
    tuned = build(replace(beit, final_norm=False, relative_positions="per_block")).eval()
    initialize(tuned, simmim.state_dict(), part="image_encoder")
    encoder: Any = simmim.image_encoder
    torch.testing.assert_close(encoder.norm(tuned.image_encoder(batch.images)), expected)
    names = [name for name, _ in tuned.named_parameters() if name.endswith("bias_table")]
    assert names == [f"image_encoder.blocks.{i}.attn.relative_position_bias_table" for i in range(3)]
    with pytest.raises(ValueError, match="needs all of them"):
        FineTuningConfig().check(replace(beit, relative_positions="per_block"), RandomMask())


def release_layer(name: str, num_layers: int) -> int:
    """`get_layer_id_for_vit` of MAE's util/lr_decay.py, by its names."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else num_layers


THEIRS = {
    "image_encoder.class_token": "cls_token",
    "image_encoder.positions": "pos_embed",
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
    "norm.weight": "fc_norm.weight",
    "norm.bias": "fc_norm.bias",
}


def test_groups_of_vit_b_are_those_of_maes_release() -> None:
    """Rate and decay of every parameter, by the release's rules: 12 blocks, 0.65 and 0.05."""
    model = build(replace(TUNED_VIT, depth=12))
    config = AdamWConfig(weight_decay=0.05, layer_decay=0.65, undecayed=("positions",))
    names = {id(p): name for name, p in model.named_parameters()}
    num_layers, seen = 12 + 1, set[str]()
    for group in build_optimizer(model, config).param_groups:
        for p in group["params"]:
            ours = names[id(p)]
            name = THEIRS.get(ours, ours.removeprefix("image_encoder."))
            scale = 0.65 ** (num_layers - release_layer(name, num_layers))
            is_undecayed = p.ndim == 1 or name in ("pos_embed", "cls_token")
            assert group["lr_scale"] == pytest.approx(scale), name
            assert group["weight_decay"] == (0.0 if is_undecayed else 0.05), name
            seen.add(ours)
    assert seen == set(names.values())
