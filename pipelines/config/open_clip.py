"""A training command of open_clip as the settings of a run."""

import contextlib
import io
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.errors import UserError, blaming
from vlp.imports.open_clip import clip_model, settings_of_model

MAIN = ("open_clip_train.main", "training.main")
PER_NODE = ("--nproc_per_node", "--nproc-per-node")
SETTINGS: Mapping[str, str] = {
    "model": "`image_encoder`, `objective.text_encoder`, `objective.embed_dim`: the sizes of both towers",
    "force_image_size": "`image_encoder.image_size`",
    "force_quick_gelu": "`activation: quick_gelu` of both towers",
    "force_patch_dropout": "`mask: {name: random, mask_ratio: ...}`",
    "force_context_length": "`tokenizer.context_length`",
    "siglip": "`objective.loss.name: sigmoid`",
    "train_data": "`data.shards`, a folder that `vlp data index` has indexed",
    "batch_size": "`training.batch_size`, which is that of all workers together",
    "accum_freq": "`machine.memory.batch_parts`, with all negatives",
    "epochs": "`training.length.steps`",
    "train_num_samples": "`training.length.steps`",
    "lr": "`optimizer.lr`",
    "beta1": "`optimizer.betas`",
    "beta2": "`optimizer.betas`",
    "eps": "`optimizer.eps`",
    "wd": "`optimizer.weight_decay`",
    "warmup": "`lr_schedule.warmup_steps`",
    "lr_scheduler": "`lr_schedule.name`: cosine or constant",
    "epochs_cooldown": "`lr_schedule.cooldown_steps`",
    "lr_cooldown_end": "`lr_schedule.min_lr`",
    "lr_cooldown_power": "`lr_schedule.cooldown_power`",
    "grad_clip_norm": "`training.max_grad_norm`",
    "precision": "`training.precision`: bf16 for the bfloat16 ones, fp16 for `amp`",
    "grad_checkpointing": "`machine.memory.checkpoint_activations`",
    "torchcompile": "`machine.compile`",
    "workers": "`machine.loader_workers`",
    "seed": "`seed`",
    "name": "`name`",
}
"""Flag -> the setting that it becomes."""

_MLFLOW = "every run is tracked by MLflow, which `vlp ui` shows; leave it out"
_ALWAYS = "it is always so; leave it out"
_LOCK = "all weights of the text encoder are trained; leave it out"
_LOCK_IMAGE = "`objective: {name: lit}` with `init_from.path` keeps the image encoder: conf/run/lit.yaml"
_OTHER_DATA = "shards are tars with an index: `vlp data index`, or `vlp download` from a list"
_ON_RAY = "Ray starts the workers and finds their devices: a file of conf/machine/"
_EVALUATED = "`evaluation.classification.imagenet=FOLDER`, and `evaluation.every_steps` for how often"
_NORMALIZED = "`data.normalization` is clip or imagenet"
_TOWERS = "the towers are those of `image_encoder` and `objective`; leave it out"
REMEDIES: Mapping[str, str] = {
    "aug_cfg": "`data.crop_scale`, `data.color_jitter`, `data.color_jitter_prob`, `data.gray_scale_prob`",
    "cache_dir": "nothing is fetched; name weights by `init_from.path`",
    "coca_caption_loss_weight": "there is no CoCa",
    "coca_contrastive_loss_weight": "there is no CoCa",
    "copy_codebase": "every run records its commit; leave it out",
    "csv_caption_key": _OTHER_DATA,
    "csv_img_key": _OTHER_DATA,
    "csv_separator": _OTHER_DATA,
    "dataset_resampled": "every sample is seen once per pass, in an order of the seed's; leave it out",
    "dataset_type": _OTHER_DATA,
    "ddp_static_graph": _ALWAYS,
    "debug": "leave it out",
    "delete_previous_checkpoint": "`machine.checkpoints.keep=1`",
    "device": _ON_RAY,
    "dist_backend": _ON_RAY,
    "dist_url": _ON_RAY,
    "distill_model": "there is no distillation",
    "distill_pretrained": "there is no distillation",
    "force_custom_text": _TOWERS,
    "gather_with_grad": _ALWAYS,
    "horovod": _ON_RAY,
    "image_interpolation": "`data.interpolation`",
    "image_mean": _NORMALIZED,
    "image_resize_mode": "images are cropped; `data.crop_scale` says how much",
    "image_std": _NORMALIZED,
    "imagenet_v2": _EVALUATED,
    "imagenet_val": _EVALUATED,
    "local_loss": "the loss is always of the whole batch, computed in parts by the workers; leave it out",
    "lock_image": _LOCK_IMAGE,
    "lock_image_freeze_bn_stats": _LOCK_IMAGE,
    "lock_image_unlocked_groups": _LOCK_IMAGE,
    "lock_text": _LOCK,
    "lock_text_freeze_layer_norm": _LOCK,
    "lock_text_unlocked_layers": _LOCK,
    "log_every_n_steps": "`machine.log_every_steps`",
    "log_local": _MLFLOW,
    "logs": "`machine.storage`",
    "loss_dist_impl": "leave it out",
    "momentum": "`optimizer: {name: lars, momentum: ...}` has one; AdamW has `betas`",
    "no_set_device_rank": _ON_RAY,
    "opt": "`optimizer.name` is adamw or lars",
    "pretrained": "`init_from: {path: FILE, format: open_clip, part: model}`",
    "pretrained_image": "`init_from: {path: FILE, format: timm}`",
    "remote_sync": "`machine.storage`, such as s3://bucket/vlp, which has every checkpoint",
    "remote_sync_frequency": "every checkpoint is copied as it is written; leave it out",
    "remote_sync_protocol": "the address of `machine.storage` says it: s3://...",
    "report_to": "`machine.tracking: [mlflow, tensorboard, wandb]`",
    "resume": "the same command goes on by itself; leave it out",
    "save_frequency": "`machine.checkpoints.every_steps`",
    "save_most_recent": "`machine.checkpoints.keep`",
    "skip_scheduler": "`lr_schedule: {name: constant, warmup_steps: 0}`",
    "torchscript": "`vlp export --format onnx` makes a model for other runtimes",
    "trace": "leave it out",
    "train_data_upsampling_factors": "`data.mix: [{shards: other, share: 0.2}]`",
    "use_bn_sync": "batch norms always have the statistics of the whole batch; leave it out",
    "use_bnb_linear": "there are no 8-bit layers; leave it out",
    "val_data": "`evaluation.retrieval.NAME=FILE`",
    "val_frequency": "`evaluation.every_steps`",
    "val_num_samples": "sets are always measured whole; leave it out",
    "wandb_notes": _MLFLOW,
    "wandb_project_name": _MLFLOW,
    "zeroshot_frequency": "`evaluation.every_steps`",
}
"""Flag without a setting of its own -> what to do in its place."""


@dataclass(frozen=True)
class Translation:
    """A run's file."""

    settings: dict[str, Any]
    remarks: list[str]
    """One line per flag that was given and became no setting."""


def translate(words: Sequence[str]) -> Translation:
    """The run of a training command, with or without the words before its flags.

    Raises:
        UserError: it is none of open_clip's, lacks its length, or trains a model that there is not.
    """
    launcher, flags = _split(words)
    given, default = _parse(flags), _parse([])
    if given.train_num_samples is None:
        raise UserError(
            "--train-num-samples is missing, by which the length of the training is known; add it"
        )
    unlike = (flag for flag in REMEDIES if getattr(given, flag) != getattr(default, flag))
    remarks = [f"--{flag.replace('_', '-')}: {REMEDIES[flag]}" for flag in unlike]
    if given.train_data and "::" in given.train_data:
        remarks.append(
            f"--train-data: only the first set is taken; {REMEDIES['train_data_upsampling_factors']}"
        )
    return Translation(_run(given, num_workers=_num_workers(launcher)), remarks)


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What starts the training, and its flags."""
    for place, word in enumerate(words):
        if word in MAIN or word.endswith("main.py"):
            return words[:place], words[place + 1 :]
    return (), words


def _num_workers(launcher: Sequence[str]) -> int:
    """GPUs of a node that torchrun was to use; 1 if it does not say."""
    split = " ".join(launcher).replace("=", " ").split()
    counts = [split[i + 1] for i, word in enumerate(split[:-1]) if word in PER_NODE]
    return int(counts[0]) if counts and counts[0].isdigit() else 1


def _parse(flags: Sequence[str]) -> Namespace:
    from open_clip_train.params import parse_args

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse_args(list(flags))
    except SystemExit as error:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"these are no arguments of open_clip's training: {reason}") from error


def _run(given: Namespace, *, num_workers: int) -> dict[str, Any]:
    batch_size = given.batch_size * num_workers * given.accum_freq
    epoch = math.ceil(given.train_num_samples / batch_size)
    run = {
        "name": (given.name or given.model).lower().replace("-", "_").replace("/", "_"),
        "seed": given.seed,
        **_model(given),
        "optimizer": {
            "lr": given.lr,
            "betas": [given.beta1, given.beta2],
            "eps": given.eps,
            "weight_decay": given.wd,
        },
        "lr_schedule": _schedule(given, epoch),
        "training": {
            "length": {"steps": given.epochs * epoch},
            "batch_size": batch_size,
            "precision": _precision(given.precision),
            "max_grad_norm": given.grad_clip_norm,
        },
        "machine": _machine(given, num_workers),
    }
    if given.train_data:
        run["data"] = {"shards": str(Path(given.train_data.partition("::")[0]).parent)}
    return run


def _model(given: Namespace) -> dict[str, Any]:
    with blaming("--"):
        model = clip_model(given.model)
        model |= {"quick_gelu": True} if given.force_quick_gelu else {}
        towers = settings_of_model(model, name=given.model)
    dropped = given.force_patch_dropout
    mask_ratio = model["vision_cfg"].get("patch_dropout", 0.0) if dropped is None else dropped
    forced = {
        "image_encoder": {"image_size": given.force_image_size} if given.force_image_size else {},
        "tokenizer": {"context_length": given.force_context_length} if given.force_context_length else {},
        "mask": {"name": "random", "mask_ratio": mask_ratio} if mask_ratio else {"name": "none"},
        "objective": {"loss": {"name": "sigmoid" if given.siglip else "infonce"}},
    }
    return {key: towers.get(key, {}) | forced[key] for key in (*towers, "mask")}


def _schedule(given: Namespace, epoch: int) -> dict[str, Any]:
    if given.lr_scheduler == "cosine":
        return {"name": "cosine", "warmup_steps": given.warmup}
    cooldown = {
        "cooldown_steps": (given.epochs_cooldown or 0) * epoch,
        "cooldown_power": given.lr_cooldown_power,
        "min_lr": given.lr_cooldown_end,
    }
    constant = {"name": "constant", "warmup_steps": given.warmup}
    return constant | (cooldown if given.lr_scheduler == "const-cooldown" else {})


def _precision(name: str) -> str:
    return "bf16" if "bf" in name else "fp32" if name == "fp32" else "fp16"


def _machine(given: Namespace, num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "use_gpu": given.device != "cpu",
        "loader_workers": given.workers,
        "compile": given.torchcompile,
        "memory": {
            "batch_parts": given.accum_freq,
            "checkpoint_activations": given.grad_checkpointing,
        },
    }
