"""Exported models give in the libraries that they are written for what they give here."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vlp.core.registry import Registry
from vlp.encoders import IMAGE_ENCODERS
from vlp.encoders.text import TextConfig
from vlp.export import FORMATS, export
from vlp.losses.contrastive import CONTRASTIVE_LOSSES
from vlp.masking.random import RandomMask
from vlp.masking.strategy import visible_slots
from vlp.model import Model
from vlp.objectives import OBJECTIVES
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.mae import MAE, MAEConfig
from vlp.run import RunConfig
from vlp.tokenizers import TokenizerConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.weights.initialization import initialize, read_weights, weights_file
from vlp.weights.names import our_names

BPE = ClipBPEConfig(context_length=16)
CAPTIONS = ["a red circle", "two blue squares beside a dog"]
SIZES: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2},
    "beit": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2},
    "swin": {
        "image_size": 32,
        "patch_size": 4,
        "width": 8,
        "depths": (1, 1),
        "num_heads": (1, 2),
        "window_size": 4,
    },
}


def disturbed(run: RunConfig) -> Model:
    """A model of which no weight is what a fresh one would have, such as a bias of 0."""
    objective = run.build(run.vocabulary(run.tokenizer.build())).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in objective.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return Model(objective, run)


def made(registry: Registry, name: str, **settings: Any) -> Any:
    return registry[name](**settings)


def clip(
    *, activation: Any = "gelu", loss: str = "infonce", tokenizer: TokenizerConfig = BPE, **given: Any
) -> Model:
    """Two small towers."""
    sizes = SIZES["vit"] | {"activation": activation} | given
    objective = ContrastiveConfig(
        embed_dim=8,
        loss=made(CONTRASTIVE_LOSSES, loss),
        text_encoder=TextConfig(width=16, depth=1, num_heads=2, activation=activation),
    )
    return disturbed(
        RunConfig(
            name="small",
            image_encoder=made(IMAGE_ENCODERS, "vit", **sizes),
            objective=objective,
            tokenizer=tokenizer,
        )
    )


def image_model(objective: Any, *, encoder: str = "vit", mask: Any = None, **given: Any) -> Model:
    run = RunConfig(
        name="small",
        image_encoder=made(IMAGE_ENCODERS, encoder, **SIZES[encoder] | given),
        mask=mask or RandomMask(mask_ratio=0.75),
        objective=objective,
        tokenizer=BPE,
    )
    return disturbed(run)


def mae(**given: Any) -> Model:
    objective = MAEConfig(decoder_width=8, decoder_depth=2, decoder_heads=2, **given)
    return image_model(objective, positions="sincos", pre_norm=False, norm_eps=1e-6)


def simmim(encoder: str) -> Model:
    return image_model(made(OBJECTIVES, "simmim"), encoder=encoder)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "make",
    [
        clip,
        lambda: clip(activation="quick_gelu"),
        mae,
        lambda: mae(pool="mean"),
        lambda: simmim("vit"),
        lambda: simmim("swin"),
        lambda: simmim("beit"),
    ],
)
def test_timm_gives_the_features_or_the_embeddings(
    make: Callable[[], Model], images: Tensor, tmp_path: Path
) -> None:
    import timm
    from timm.data.config import resolve_data_config

    model = make()
    export(model, tmp_path, format="timm")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.inference_mode():
        found = theirs(images)
        if model.config.objective.encodes_text:
            found = torch.nn.functional.normalize(found, dim=-1)
            expected = model.encode_image(images)
        else:
            expected = model.features(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    data = resolve_data_config(model=theirs)
    assert (data["input_size"], data["crop_pct"]) == ((3, 32, 32), 1.0)
    assert data["mean"] == pytest.approx((0.48145466, 0.4578275, 0.40821073))


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_open_clip_gives_the_embeddings_of_both_towers(
    activation: str, loss: str, images: Tensor, tmp_path: Path
) -> None:
    import open_clip

    model = clip(activation=activation, loss=loss)
    export(model, tmp_path, format="open_clip")
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    texts = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(CAPTIONS)
    theirs.eval()
    with torch.inference_mode():
        image, text, scale, *bias = theirs(images, texts)
        torch.testing.assert_close(image, model.encode_image(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(text, model.encode_text(*model.tokenize(CAPTIONS)), atol=1e-5, rtol=1e-5)
        objective: Any = model.objective
        torch.testing.assert_close(scale, objective.log_logit_scale.exp())
        assert [*bias] == ([] if loss == "infonce" else [objective.logit_bias])
    assert "Resize" in str(preprocess)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_transformers_gives_the_embeddings_of_both_towers_and_the_same_inputs(
    activation: str, tmp_path: Path
) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = clip(activation=activation)
    export(model, tmp_path, format="huggingface")
    theirs = CLIPModel.from_pretrained(tmp_path).eval()
    texts = AutoTokenizer.from_pretrained(tmp_path)(CAPTIONS, padding=True, return_tensors="pt")
    pixels = torch.randint(0, 256, (40, 60, 3), generator=torch.Generator().manual_seed(1)).byte().numpy()
    picture = Image.fromarray(pixels)
    seen = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")["pixel_values"]
    assert (seen[0] - model.preprocess(picture)).abs().max() < 0.02  # a step of 8 bits
    images = model.preprocess(picture)[None]
    with torch.inference_mode():
        found = theirs(**texts, pixel_values=images)
        torch.testing.assert_close(found.image_embeds, model.encode_image(images), atol=1e-5, rtol=1e-5)
        expected = model.encode_text(*model.tokenize(CAPTIONS))
        torch.testing.assert_close(found.text_embeds, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_transformers_rebuilds_what_an_mae_does(norm_pix_loss: bool, images: Tensor, tmp_path: Path) -> None:
    from transformers import ViTMAEForPreTraining

    model = mae(norm_pix_loss=norm_pix_loss)
    objective = model.objective
    assert isinstance(objective, MAE)
    export(model, tmp_path, format="huggingface")
    theirs = ViTMAEForPreTraining.from_pretrained(tmp_path).eval()
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(2))
    masked = noise.argsort(dim=1).argsort(dim=1) >= 4  # the four least are seen
    slots = visible_slots(masked, 4, None)
    with torch.inference_mode():
        found = theirs(pixel_values=images, noise=noise)
        expected = objective.decode(objective.image_encoder(images, slots), slots)
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [clip, mae, lambda: simmim("swin")])
def test_onnx_gives_the_same_at_every_batch_size(make: Callable[[], Model], tmp_path: Path) -> None:
    import onnxruntime

    model = make()
    export(model, tmp_path, format="onnx")
    image = onnxruntime.InferenceSession(str(tmp_path / "image.onnx"))
    for batch_size in (1, 5):
        images = torch.randn(batch_size, 3, 32, 32, generator=torch.Generator().manual_seed(batch_size))
        (found,) = image.run(None, {"images": images.numpy()})
        is_clip = model.config.objective.encodes_text
        expected = model.encode_image(images) if is_clip else model.features(images)
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)
    if model.config.objective.encodes_text:
        text = onnxruntime.InferenceSession(str(tmp_path / "text.onnx"))
        tokens, lengths = model.tokenize([*CAPTIONS, "a dog that reads a longer book"])
        (found,) = text.run(None, {"tokens": tokens.numpy(), "lengths": lengths.numpy()})
        expected = model.encode_text(tokens, lengths)
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [clip, mae, lambda: image_model(made(OBJECTIVES, "superclass"))])
def test_safetensors_has_every_weight(make: Callable[[], Model], tmp_path: Path) -> None:
    model = make()
    export(model, tmp_path, format="safetensors")
    weights = load_file(tmp_path / "model.safetensors")
    state = model.objective.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], x) for name, x in state.items())


@pytest.mark.parametrize(
    ("make", "format"),
    [(clip, "open_clip"), (clip, "huggingface"), (mae, "huggingface"), (mae, "timm"), (clip, "timm")],
)
def test_what_was_exported_is_read_again(
    make: Callable[[], Model], format: str, images: Tensor, tmp_path: Path
) -> None:
    """By the same table of names."""
    model = make()
    export(model, tmp_path, format=format)
    fresh = model.config.build(model.config.vocabulary(model.tokenizer)).eval()
    part = "image_encoder" if format == "timm" else "model"
    initialize(
        fresh,
        our_names(read_weights(weights_file(tmp_path)), format=format, encoder=fresh.image_encoder),
        part=part,
    )
    with torch.inference_mode():
        assert torch.equal(fresh.features(images), model.features(images))


def test_what_a_format_cannot_hold_is_refused_in_one_line(tmp_path: Path) -> None:
    superclass = image_model(made(OBJECTIVES, "superclass"))
    for model, format, reason in [
        (superclass, "timm", "objective superclass changes what the states are pooled to"),
        (superclass, "open_clip", "objective superclass is not CLIP's"),
        (mae(), "open_clip", "objective mae is not CLIP's"),
        (simmim("swin"), "huggingface", "objective simmim is not CLIP's"),
        (clip(loss="sigmoid"), "huggingface", r"objective\.loss learns a bias of the logits"),
        (clip(tokenizer=replace(BPE, stop_words="drop")), "open_clip", "tokenizer clip_bpe, as it is set, "),
        (clip(norm_eps=1e-6), "open_clip", "image_encoder is not CLIP's ViT"),
        (clip(norm_eps=1e-4), "timm", r"image_encoder\.norm_eps is 0\.0001"),
    ]:
        with pytest.raises(ValueError, match=rf"^{format} cannot hold small: {reason}") as refused:
            export(model, tmp_path / "x", format=format)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "x").exists()
    with pytest.raises(
        ValueError, match=r"^onnx cannot hold small: PyTorch does not translate it: "
    ) as refused:
        export(simmim("beit"), tmp_path / "x", format="onnx")
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=r"^format is 'keras'; valid: huggingface, onnx, open_clip, "):
        export(superclass, tmp_path, format="keras")


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_card_says_what_it_is_and_how_it_is_loaded(format: str, tmp_path: Path) -> None:
    export(clip(), tmp_path, format=format, results="| recall | 0.5 |")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ")
    for part in ("# small", "2103.00020", str(tmp_path), "| recall | 0.5 |", '"embed_dim": 8', "licence"):
        assert part in card
    (usage,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(usage, {"images": torch.zeros(1, 3, 32, 32).numpy()})
