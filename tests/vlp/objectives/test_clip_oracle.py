"""CLIP, against Hugging Face's model with the same weights."""

import pytest
import torch
from torch import Generator, Tensor

from vlp.encoders.text import TextConfig
from vlp.encoders.vit import ViTConfig
from vlp.masking.none import NoMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.contrastive import Contrastive, ContrastiveConfig

VOCABULARY, CONTEXT, END = 99, 16, 98
PARTS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


@pytest.fixture(scope="module")
def model() -> Contrastive:
    torch.manual_seed(0)
    config = ContrastiveConfig(embed_dim=24, text_encoder=TextConfig(width=32, depth=2, num_heads=4))
    encoder = ViTConfig(image_size=64, patch_size=16, width=64, depth=2, num_heads=4).build()
    model = config.build(encoder, NoMask(), vocabulary=Vocabulary(VOCABULARY, CONTEXT)).eval()
    with torch.no_grad():  # weights that matter, also where they start as zeros or ones
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def batch() -> Batch:
    """Captions of 2 to 9 tokens; the end of the text is the greatest id."""
    generator, lengths = Generator().manual_seed(1), torch.tensor([9, 2, 5, 3, 9])
    tokens = torch.randint(1, END, (5, 9), generator=generator)
    tokens[torch.arange(9) >= lengths[:, None]] = 0
    tokens[torch.arange(5), lengths - 1] = END
    return Batch(torch.randn(5, 3, 64, 64, generator=generator), tokens, lengths)


def blocks(state: dict[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    """The weights of two blocks under the names of Hugging Face."""
    renamed = {}
    for i, (a, b) in ((i, part) for i in range(2) for part in PARTS.items()):
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{i}.{b}.{kind}"] = state[f"{ours}.{i}.{a}.{kind}"]
            thirds = state[f"{ours}.{i}.attn.qkv.{kind}"].chunk(3)
            for part, third in zip("qkv", thirds, strict=True):
                renamed[f"{theirs}.{i}.self_attn.{part}_proj.{kind}"] = third
    return renamed


def hugging_face_names(model: Contrastive) -> dict[str, Tensor]:
    state = model.state_dict()
    vision, text = "vision_model.embeddings", "text_model.embeddings"
    names = {
        "image_projection.weight": "visual_projection.weight",
        "text_projection.weight": "text_projection.weight",
        "log_logit_scale": "logit_scale",
        "image_encoder.patch_embed.proj.weight": f"{vision}.patch_embedding.weight",
        "text_encoder.token_embed.weight": f"{text}.token_embedding.weight",
        "text_encoder.positions": f"{text}.position_embedding.weight",
    }
    norms = {
        "image_encoder.norm_pre": "vision_model.pre_layrnorm",
        "image_encoder.norm": "vision_model.post_layernorm",
        "text_encoder.norm": "text_model.final_layer_norm",
    }
    names |= {f"{a}.{kind}": f"{b}.{kind}" for a, b in norms.items() for kind in ("weight", "bias")}
    renamed = {theirs: state[ours] for ours, theirs in names.items()}
    renamed[f"{vision}.class_embedding"] = state["image_encoder.class_token"][0, 0]
    renamed[f"{vision}.position_embedding.weight"] = state["image_encoder.positions"][0]
    renamed |= blocks(state, "image_encoder.blocks", "vision_model.encoder.layers")
    return renamed | blocks(state, "text_encoder.blocks", "text_model.encoder.layers")


@torch.no_grad()
def test_embeddings_and_loss_are_those_of_hugging_face(model: Contrastive, batch: Batch) -> None:
    transformers = pytest.importorskip("transformers")
    shared = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu", "projection_dim": 24}
    text = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": END,
        "bos_token_id": 0,
    }
    oracle = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config={
                **shared,
                "image_size": 64,
                "patch_size": 16,
                "hidden_size": 64,
                "intermediate_size": 256,
            },
            text_config={**shared, **text, "hidden_size": 32, "intermediate_size": 128},
            projection_dim=24,
        )
    ).eval()
    oracle.load_state_dict(hugging_face_names(model))
    images, tokens, lengths = batch[:3]
    expected = oracle(
        input_ids=tokens,
        pixel_values=images,
        attention_mask=(torch.arange(9) < lengths[:, None]).long(),
        return_loss=True,
    )
    torch.testing.assert_close(model.encode_image(images), expected.image_embeds, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.encode_text(tokens, lengths), expected.text_embeds, atol=1e-6, rtol=1e-5)
    loss = model(batch, progress=0.0, generator=None).loss
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
