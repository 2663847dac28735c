"""A run may start from the weights of another model, and then computes what that model does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm.models.vision_transformer as timm_vit
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.checkpoints.store import RunManifest
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.pipelines.runs import fresh_objective, pretrain, run_identity
from vlp.checkpoint import MODEL
from vlp.objectives.contrastive import Contrastive
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]
MACHINE = MachineConfig(num_workers=0)
PLAIN = {"pre_norm": False, "norm_eps": 1e-6}  # timm's ViT


def train(run: RunConfig, output: Path) -> tuple[Path, RunManifest]:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    manifest = pretrain(run, output, machine=MACHINE, journal=journal)
    return find_checkpoint(output), manifest


def disturb(model: nn.Module) -> None:
    """No weight is left that a fresh model would have, such as a bias of 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vit() -> timm_vit.VisionTransformer:
    model = timm_vit.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
    )
    disturb(model)
    return model.eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_encoder_from_timm_has_its_features_and_the_rest_is_random(
    suffix: str, vit: timm_vit.VisionTransformer, images: Tensor, tiny_run: MakeRun, tmp_path: Path
) -> None:
    """Through a run of no steps: what is trained starts there."""
    file = tmp_path / f"vit{suffix}"
    save_file(vit.state_dict(), file) if suffix == ".safetensors" else torch.save(vit.state_dict(), file)
    source = {"path": str(file), "format": "timm"}
    run = tiny_run(init_from=source, image_encoder=PLAIN, training={"length": {"steps": 0}})
    checkpoint, _ = train(run, tmp_path / "run")
    file.unlink()  # the checkpoint needs it no more
    model, _ = load_model(checkpoint, torch.device("cpu"))
    with torch.inference_mode():
        torch.testing.assert_close(model.features(images), vit.forward_features(images)[:, 0])
    fresh = fresh_objective(tiny_run(image_encoder=PLAIN)).state_dict()
    for name, weight in model.state_dict().items():
        is_new = not name.startswith("image_encoder.")
        assert torch.equal(weight, fresh[name]) == is_new, name


def test_positions_are_resized_to_the_size_of_the_run(
    vit: timm_vit.VisionTransformer, tiny_run: MakeRun, tmp_path: Path
) -> None:
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    source = {"path": str(tmp_path / "vit.pt"), "format": "timm"}
    run = tiny_run(init_from=source, image_encoder=PLAIN | {"image_size": 48})
    larger = timm_vit.VisionTransformer(
        img_size=48, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
    )
    larger.load_state_dict(timm_vit.checkpoint_filter_fn(vit.state_dict(), larger))
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = fresh_objective(run).eval().features(images)
        torch.testing.assert_close(features, larger.eval().forward_features(images)[:, 0])


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_model_of_open_clip_has_its_embeddings(
    is_wrapped: bool, images: Tensor, tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run()
    oracle = CLIP(
        embed_dim=8,
        vision_cfg=CLIPVisionCfg(layers=2, width=16, head_width=8, patch_size=8, image_size=32),
        text_cfg=CLIPTextCfg(context_length=16, vocab_size=49_408, width=16, heads=2, layers=1),
    ).eval()
    disturb(oracle)
    state = oracle.state_dict()
    saved = {"epoch": 3, "state_dict": {f"module.{k}": x for k, x in state.items()}} if is_wrapped else state
    torch.save(saved, tmp_path / "clip.pt")
    source = {"path": str(tmp_path / "clip.pt"), "format": "open_clip"}
    model = fresh_objective(tiny_run(init_from=source | {"part": "model"})).eval()
    assert isinstance(model, Contrastive)
    captions = ["a red circle", "two blue squares beside a dog"]
    with torch.inference_mode():
        found = model.encode_image(images)
        torch.testing.assert_close(found, oracle.encode_image(images, normalize=True))
        texts = open_clip.get_tokenizer("ViT-B-32", context_length=16)(captions)
        found = model.encode_text(*run.tokenizer.build().encode(captions))
        torch.testing.assert_close(found, oracle.encode_text(texts, normalize=True))
        assert model.log_logit_scale == oracle.logit_scale
        encoder = fresh_objective(tiny_run(init_from=source)).eval()
        assert torch.equal(encoder.features(images), model.features(images))
        assert not torch.equal(encoder.encode_image(images), model.encode_image(images))  # pyright: ignore


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("part", ["model", "image_encoder"])
def test_a_clip_of_transformers_has_its_embeddings(
    part: str, activation: str, images: Tensor, tiny_run: MakeRun, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    shared = {"num_attention_heads": 2, "hidden_act": activation, "hidden_size": 16, "intermediate_size": 64}
    vision = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 2}
    text = {"vocab_size": 49_408, "max_position_embeddings": 16, "num_hidden_layers": 1}
    config = transformers.CLIPConfig(
        vision_config=shared | vision,
        text_config=shared | text | {"bos_token_id": 49_406, "eos_token_id": 49_407},
        projection_dim=8,
    )
    oracle = transformers.CLIPModel(config).eval()
    disturb(oracle)
    oracle.save_pretrained(tmp_path / "clip")
    source = {"path": str(tmp_path / "clip" / "model.safetensors"), "format": "huggingface", "part": part}
    act = {"activation": activation}
    run = tiny_run(init_from=source, image_encoder=act, objective={"text_encoder": act})
    model = fresh_objective(run).eval()
    assert isinstance(model, Contrastive)
    tokens, lengths = run.tokenizer.build().encode(["a red circle", "two blue squares beside a dog"])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    with torch.inference_mode():
        found = oracle(input_ids=tokens, attention_mask=mask, pixel_values=images)
        expected = oracle.vision_model(pixel_values=images).pooler_output
        torch.testing.assert_close(model.features(images), expected)
        if part == "model":
            torch.testing.assert_close(model.encode_image(images), found.image_embeds)
            torch.testing.assert_close(model.encode_text(tokens, lengths), found.text_embeds)


def test_a_run_goes_on_from_the_weights_of_another_one_with_a_new_optimizer(
    tiny_run: MakeRun, images: Tensor, tmp_path: Path
) -> None:
    """The encoder of MAE, and all of CLIP; resuming later does not start there again."""
    mae = {"name": "mae", "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    first, _ = train(tiny_run(objective=mae), tmp_path / "mae")
    model, _ = load_model(first, torch.device("cpu"))
    source = {"path": str(tmp_path / "mae")}
    run = tiny_run(init_from=source, training={"length": {"steps": 4}})
    with torch.inference_mode():
        start = fresh_objective(run).eval()
        assert torch.equal(start.features(images), model.features(images))
    second, manifest = train(run, tmp_path / "clip")
    assert torch.load(second / "training.pt", weights_only=True)["step"] == 4
    assert train(run, tmp_path / "clip")[1].digest == manifest.digest
    third = tiny_run(init_from={"path": str(second), "part": "model"})
    trained = load_file(second / MODEL)
    assert all(
        torch.equal(weight, trained[name]) for name, weight in fresh_objective(third).state_dict().items()
    )


def test_the_identity_follows_the_content_of_the_weights(
    vit: timm_vit.VisionTransformer, tiny_run: MakeRun, tmp_path: Path
) -> None:
    identities = []
    for name in ("a", "b", "c"):
        if name == "c":
            disturb(vit)
        torch.save(vit.state_dict(), tmp_path / f"{name}.pt")
        source = {"path": str(tmp_path / f"{name}.pt"), "format": "timm"}
        identities.append(run_identity(tiny_run(init_from=source, image_encoder=PLAIN)))
    # A file that torch saved contains its own name.
    (tmp_path / "copy.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    source = {"path": str(tmp_path / "copy.pt"), "format": "timm"}
    identities.append(run_identity(tiny_run(init_from=source, image_encoder=PLAIN)))
    assert identities[0] == identities[3] != identities[2]
    assert run_identity(tiny_run(image_encoder=PLAIN)) not in identities


def cut_norm(state: dict[str, Tensor]) -> None:
    del state["norm.weight"]


def add_register(state: dict[str, Tensor]) -> None:
    state["reg_token"] = torch.zeros(1, 4, 16)


def widen(state: dict[str, Tensor]) -> None:
    state["patch_embed.proj.weight"] = torch.zeros(16, 3, 16, 16)


def leave(state: dict[str, Tensor]) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "changes", "expected"),
    [
        (cut_norm, {}, "the model needs image_encoder.norm.weight"),
        (add_register, {}, "the model has no image_encoder.reg_token"),
        (widen, {}, "image_encoder.patch_embed.proj.weight is (16, 3, 16, 16) and the model's (16, 3, 8, 8)"),
        (leave, {"depth": 3}, "the model needs image_encoder.blocks.2.attn.proj.bias, "),
        (leave, {"depth": 1}, " and 9 more"),
        (leave, {"pre_norm": True}, "the model needs image_encoder.norm_pre.bias"),
        (leave, {"positions": "sincos"}, "which image_encoder.positions fixes"),
        (dict.clear, {}, "holds no weights"),
    ],
)
def test_weights_that_do_not_fit_are_told_in_one_line_before_the_start(
    change: Callable[[dict[str, Tensor]], None],
    changes: dict[str, Any],
    expected: str,
    vit: timm_vit.VisionTransformer,
    tiny_run: MakeRun,
    tmp_path: Path,
) -> None:
    state = dict(vit.state_dict())
    change(state)
    torch.save(state, tmp_path / "vit.pt")
    source = {"path": str(tmp_path / "vit.pt"), "format": "timm"}
    with pytest.raises(ConfigError) as raised:
        resolve(tiny_run(init_from=source, image_encoder=PLAIN | changes), MACHINE)
    message = str(raised.value)
    assert message.startswith(f"init_from: {tmp_path / 'vit.pt'}")
    assert expected in message
    assert "\n" not in message


def test_what_workers_read_in_folders_of_their_own_is_named_from_the_root(
    tiny_run: MakeRun, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_run(), tmp_path / "first")
    (tmp_path / "shards").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    run = resolve(tiny_run(init_from={"path": "first"}, data={"shards": "shards"}), MACHINE)
    monkeypatch.chdir("/")
    assert run.build()
    assert run.shards.image_bytes(0)


def test_weights_that_are_not_there_are_named(tiny_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("x")
    for source, expected in (
        ({"path": "nowhere.pt", "format": "timm"}, "init_from.path: no such file: nowhere.pt"),
        ({"path": str(tmp_path)}, "init_from.path: .* is neither a checkpoint nor a finished run"),
        ({"path": str(tmp_path / "text.pt"), "format": "timm"}, "text.pt holds no weights: "),
    ):
        with pytest.raises(ConfigError, match=expected) as raised:
            resolve(tiny_run(init_from=source, image_encoder=PLAIN), MACHINE)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"init_from\.part must be image_encoder where format is timm"):
        tiny_run(init_from={"path": "x.pt", "format": "timm", "part": "model"})
