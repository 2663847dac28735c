"""A folder for `from_pretrained` of transformers: CLIPModel with its processor, or ViTMAEForPreTraining."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file

from vlp.core.normalization import MEAN_STD
from vlp.export.clip import clip_parts
from vlp.export.format import FORMATS, ExportFormat, weights_for
from vlp.model import Model
from vlp.objectives.mae import MAEConfig
from vlp.run import RunConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig, read_merges, read_pieces

MAE_VIT = "vit_base_patch16_224"


@FORMATS.register
class HuggingFace(ExportFormat):
    """That of transformers, which has to be installed."""

    name = "huggingface"
    usage = (
        "from transformers import AutoImageProcessor, AutoModel\n\n"
        'model = AutoModel.from_pretrained("{folder}").eval()\n'
        'processor = AutoImageProcessor.from_pretrained("{folder}")'
    )

    def check(self, run: RunConfig) -> None:
        if run.objective.architecture == "mae":
            _mae_sizes(run)
        elif clip_parts(run).objective.loss.initial_bias is not None:
            raise ValueError("objective.loss learns a bias of the logits, and CLIPModel has none")

    def write(self, model: Model, folder: Path) -> None:
        configs: dict[str, Callable[[Model], Any]] = {"clip": _clip, "mae": _mae}
        configs[model.config.objective.architecture](model).save_pretrained(folder)
        theirs = weights_for("huggingface", model.objective)
        save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
        _processor(model).save_pretrained(folder)
        if model.config.objective.encodes_text:
            _tokenizer(model).save_pretrained(folder)


def _clip(model: Model) -> Any:
    from transformers import CLIPConfig

    image, objective = clip_parts(model.config)
    text, tokenizer = objective.text_encoder, model.tokenizer
    start, end = tokenizer.frame
    shared = {"hidden_act": text.activation}
    vision = {
        "hidden_size": image["embed_dim"],
        "intermediate_size": 4 * image["embed_dim"],
        "num_hidden_layers": image["depth"],
        "num_attention_heads": image["num_heads"],
        "image_size": image["img_size"],
        "patch_size": image["patch_size"],
    }
    texts = {
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.depth,
        "num_attention_heads": text.num_heads,
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": model.config.tokenizer.context_length,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    return CLIPConfig(
        vision_config=shared | vision,
        text_config=shared | texts,
        projection_dim=objective.embed_dim,
        architectures=["CLIPModel"],
    )


def _mae_sizes(run: RunConfig) -> dict[str, Any]:
    architecture, image, _ = run.image_encoder.as_timm()
    if architecture != MAE_VIT or image.get("pre_norm") or image.get("act_layer") != "gelu":
        raise ValueError("image_encoder is not MAE's ViT, with pre_norm false, norm_eps 1e-6 and gelu")
    return image


def _mae(model: Model) -> Any:
    from transformers import ViTMAEConfig

    run = model.config
    image, objective = _mae_sizes(run), cast(MAEConfig, run.objective)
    width = objective.decoder_width
    visible = run.mask.num_visible(run.image_encoder.num_patches)
    return ViTMAEConfig(
        hidden_size=image["embed_dim"],
        intermediate_size=4 * image["embed_dim"],
        num_hidden_layers=image["depth"],
        num_attention_heads=image["num_heads"],
        image_size=image["img_size"],
        patch_size=image["patch_size"],
        layer_norm_eps=1e-6,
        decoder_hidden_size=width,
        decoder_intermediate_size=4 * width,
        decoder_num_hidden_layers=objective.decoder_depth,
        decoder_num_attention_heads=objective.decoder_heads,
        mask_ratio=1 - visible / run.image_encoder.num_patches,
        norm_pix_loss=objective.norm_pix_loss,
        architectures=["ViTMAEForPreTraining"],
    )


def _processor(model: Model) -> Any:
    """As `Model.preprocess`: the shorter side resized, the middle square cut out."""
    from transformers import CLIPImageProcessor

    size = model.config.image_encoder.image_size
    mean, std = MEAN_STD[model.config.data.normalization]
    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(mean),
        image_std=list(std),
    )


def _tokenizer(model: Model) -> Any:
    """CLIP's, of which transformers spells the special tokens otherwise."""
    from transformers import CLIPTokenizer

    config = cast(ClipBPEConfig, model.config.tokenizer)
    *pieces, _, _ = read_pieces(config.merges)
    vocabulary: Any = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    merges: Any = read_merges(config.merges)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=config.context_length)
