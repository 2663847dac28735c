"""Folders that open_clip, timm and transformers write are loaded, and give here what they give there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

import vlp
from vlp.imports import library_of

CAPTIONS = ["a red circle", "two blue squares beside a dog"]
MODEL_CFG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49_408, "width": 16, "heads": 2, "layers": 1},
}


def disturb(model: nn.Module) -> Any:
    """No weight is left that a fresh model would have, such as a bias of 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def write_open_clip(folder: Path, **changes: Any) -> CLIP:
    settings = {"model_cfg": MODEL_CFG | changes, "preprocess_cfg": {}}
    vision, text = CLIPVisionCfg(**MODEL_CFG["vision_cfg"]), CLIPTextCfg(**MODEL_CFG["text_cfg"])
    own = {key: value for key, value in changes.items() if key in ("quick_gelu", "init_logit_bias")}
    oracle = disturb(CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text, **own))
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    save_file(oracle.state_dict(), folder / "open_clip_model.safetensors")
    return oracle


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("changes", [{}, {"quick_gelu": True}, {"init_logit_bias": -10.0}])
@torch.no_grad()
def test_open_clip(changes: dict[str, Any], images: Tensor, tmp_path: Path) -> None:
    oracle = write_open_clip(tmp_path, **changes)
    model = vlp.load(tmp_path)
    expected = oracle.encode_image(images, normalize=True)
    torch.testing.assert_close(model.encode_image(images), expected, atol=1e-5, rtol=1e-5)
    texts = open_clip.get_tokenizer("ViT-B-32", context_length=16)(CAPTIONS)
    expected = oracle.encode_text(texts, normalize=True)
    torch.testing.assert_close(model.encode_text(*model.tokenize(CAPTIONS)), expected, atol=1e-5, rtol=1e-5)
    weights = model.objective.state_dict()
    assert weights["log_logit_scale"] == oracle.logit_scale
    assert weights.get("logit_bias") == oracle.logit_bias


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_resnet", "test_convnext"])
@torch.no_grad()
def test_timm(name: str, images: Tensor, tmp_path: Path) -> None:
    size: dict[str, Any] = {"img_size": 32} if "vit" in name else {}
    oracle = disturb(timm.create_model(name, pretrained=False, **size))
    config = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "input_size": (3, 32, 32)}
    oracle.pretrained_cfg |= config
    save_for_hf(oracle, str(tmp_path), model_args=size, safe_serialization=True)
    model = vlp.load(tmp_path)
    expected = oracle.forward_head(oracle.forward_features(images), pre_logits=True)
    torch.testing.assert_close(model.features(images), expected, atol=1e-5, rtol=1e-5)
    assert model.config.data.normalization == "imagenet"
    assert model.config.image_encoder.image_size == 32
    with pytest.raises(TypeError, match="learns no space that images and texts share"):
        model.encode_image(images)


@torch.no_grad()
def test_clip_of_transformers(images: Tensor, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shared = {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        vision_config=shared | {"image_size": 32, "patch_size": 8, "num_hidden_layers": 2},
        text_config=shared
        | {"vocab_size": 49_408, "max_position_embeddings": 16, "num_hidden_layers": 1}
        | {"bos_token_id": 49_406, "eos_token_id": 49_407},
        projection_dim=8,
    )
    oracle = disturb(transformers.CLIPModel(config))
    oracle.save_pretrained(tmp_path)
    model = vlp.load(tmp_path)
    assert model.config.image_encoder.activation == "quick_gelu"  # pyright: ignore[reportAttributeAccessIssue]
    tokens, lengths = model.tokenize(CAPTIONS)
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    expected = oracle(input_ids=tokens, attention_mask=mask, pixel_values=images)
    torch.testing.assert_close(model.encode_image(images), expected.image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode_text(tokens, lengths), expected.text_embeds, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_mae_of_transformers(images: Tensor, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        **{"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6, "mask_ratio": 0.0},
        **{"decoder_hidden_size": 8, "decoder_intermediate_size": 32, "decoder_num_hidden_layers": 1},
        decoder_num_attention_heads=2,
    )
    oracle = disturb(transformers.ViTMAEForPreTraining(config))
    embeddings = oracle.vit.embeddings
    embeddings.patch_embeddings.projection._is_hf_initialized = False
    embeddings.initialize_weights()  # positions, which a new model of transformers lacks
    oracle.decoder.initialize_weights(16)
    oracle.save_pretrained(tmp_path)
    config_file = tmp_path / "config.json"
    config_file.write_text(config_file.read_text().replace('"mask_ratio": 0.0', '"mask_ratio": 0.75'))
    model = vlp.load(tmp_path)
    noise = torch.arange(16.0).expand(3, -1)  # patches stay in order
    expected = oracle.vit(pixel_values=images, noise=noise).last_hidden_state
    torch.testing.assert_close(model.objective.image_encoder(images), expected, atol=1e-5, rtol=1e-5)


def write_transformers(folder: Path, **content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def write_timm(folder: Path, **content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("write", "content", "said"),
    [
        (write_open_clip, {"custom_text": True}, "has custom_text, which has no counterpart"),
        (write_transformers, {"model_type": "bert"}, "model_type is bert; clip and vit_mae can be loaded"),
        (
            write_transformers,
            {"model_type": "clip", "vision_config": {"intermediate_size": 7}, "text_config": {}},
            "intermediate_size is 7, and here it is 4 times the width, 3072",
        ),
        (
            write_transformers,
            {"model_type": "clip", "vision_config": {}, "text_config": {"vocab_size": 9}},
            "vocab_size is 9, and CLIP's tokenizer has 49408",
        ),
        (write_timm, {"architecture": "nonsense"}, "model is 'nonsense', which timm does not have"),
        (write_timm, {"architecture": "test_vit"}, "has none of model.safetensors"),
        (
            write_timm,
            {"architecture": "test_vit", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "images are normalized by a mean of [0.5, 0.5, 0.5], and here by CLIP's or ImageNet's",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(
    write: Callable[..., Any], content: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path, **content)
    assert library_of(tmp_path) is not None
    with pytest.raises(ValueError) as error:  # noqa: PT011
        vlp.load(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
