"""The averaged weights: their formula, and what looks through them."""

import torch
from torch import Generator

from vlp.encoders.vit import ViTConfig
from vlp.masking.attention import AttentionMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.superclass import SuperClass, SuperClassConfig
from vlp.training.ema import EMA, EMAConfig


def build() -> SuperClass:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, num_heads=2).build()
    return SuperClassConfig().build(encoder, AttentionMask(), vocabulary=Vocabulary(20, 6))


def test_the_average_is_the_weighted_sum_of_all_weights_so_far() -> None:
    model = build()
    ema = EMA(model, EMAConfig(decay=0.3))
    expected = model.classifier.weight.detach().clone()
    for step in range(8):
        with torch.no_grad():
            model.classifier.weight.normal_(generator=Generator().manual_seed(step))
        ema.update(model, step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.classifier.weight.detach()
    average = ema.objective
    assert isinstance(average, SuperClass)
    torch.testing.assert_close(average.classifier.weight, expected)


def test_counts_are_copied_not_averaged() -> None:
    model = build()
    ema = EMA(model, EMAConfig())
    average = ema.objective
    assert isinstance(average, SuperClass)
    model.document_frequency[3] = 7
    ema.update(model, 0)
    assert torch.equal(average.document_frequency, model.document_frequency)
    model.document_frequency[3] = 8
    assert average.document_frequency[3] == 7


def test_the_average_is_not_trained() -> None:
    model = build()
    EMA(model, EMAConfig(chooses_masks=True))
    trained = {name for name, _ in model.named_parameters()}
    assert trained == {name for name, _ in build().named_parameters()}
    assert model.state_dict().keys() == build().state_dict().keys()


def test_masks_see_attention_by_the_averaged_weights_if_asked() -> None:
    images = torch.randn(2, 3, 32, 32, generator=Generator().manual_seed(0))
    model = build()
    before = model.mask_inputs(images).attention
    for chooses_masks in (True, False):
        model = build()
        EMA(model, EMAConfig(chooses_masks=chooses_masks))
        with torch.no_grad():
            for parameter in model.image_encoder.parameters():
                parameter.mul_(1.5)
        assert torch.equal(model.mask_inputs(images).attention, before) == chooses_masks


def test_training_goes_on_with_masks_of_the_average() -> None:
    model = build()
    EMA(model, EMAConfig(chooses_masks=True))
    batch = Batch(torch.randn(4, 3, 32, 32), torch.randint(0, 20, (4, 6)), torch.full((4,), 6))
    model(batch, progress=0.0, generator=Generator().manual_seed(0)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
