"""Settings that the contracts try, by the names of registered classes; others have their defaults."""

from typing import Any

from vlp.encoders.text import TextConfig
from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.masking.schedule import Schedule

RISING = Schedule(start=0.3, end=0.8)
MASK_RATIO = ("block", "gaussian", "grid", "kmeans", "multi_block", "random", "square")
"""Masks whose only setting of note is a mask ratio."""
SIMPLE, LATER = (0.28, 0.32, 0.34, 0.36, 0.4), (0.3, 0.35, 0.38, 0.4, 0.45)
"""Quantiles of the simplicity of the images that the contracts try masks on."""
MASKS: dict[str, list[dict[str, Any]]] = {
    "adaptive": [
        {"simplicity": ((0.0, SIMPLE),)},
        {"simplicity": ((0.0, SIMPLE), (1.0, LATER)), "feature": "mix"},
        {"simplicity": ((0.0, SIMPLE),), "target_mask_ratio": Schedule(start=0.5, end=0.8)},
    ],
    "attention": [{}, {"mask_ratio": RISING}, {"cell_size": 2}],
    "cluster": [
        {"threshold": 0.3},
        {"threshold": "per_image"},
        {"threshold": "per_image", "min_mask_ratio": 0.7},
        {"threshold": ((0.0, 0.2), (1.0, 0.6)), "feature": "mix"},
        {"threshold": 0.5, "feature": "embedding"},
        {"threshold": 0.5, "pixel_norm": False},
    ],
    "importance": [
        {},
        {"score": "edges", "hide": "important"},
        {"score": "centre", "temperature": 0.5},
        {"score": "attention", "score_share": 0.5},
        {"mask_ratio": RISING},
    ],
    **{name: [{}, {"mask_ratio": RISING}] for name in MASK_RATIO},
}
"""Each is tried for itself, on 64 patches."""
TIMM_VITS = ("test_vit", "test_vit2", "test_vit3")
IMAGE_ENCODERS: dict[str, list[dict[str, Any]]] = {
    "vit": [{"patch_size": 16, "width": 48, "depth": 2, "num_heads": 4}],
    "beit": [
        {"patch_size": 16, "width": 48, "depth": 2, "num_heads": 4} | tuned
        for tuned in ({}, {"relative_positions": "per_block", "final_norm": False})
    ],
    "swin": [{"width": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}],
    "timm": [
        {"model": model}
        for model in (*TIMM_VITS, "test_resnet", "test_convnext", "vit_tiny_patch16_dinov3_qkvb")
    ],
}
"""Each is tried for itself, on images of 64 pixels."""
TEXT_MASKS: dict[str, list[dict[str, Any]]] = {
    name: [{}, {"num_tokens": 3}] for name in ("truncate", "random", "block", "frequency")
}
"""Each is tried for itself, on captions of 16 tokens."""
OBJECTIVES: dict[str, dict[str, Any]] = {
    "contrastive": {"embed_dim": 16, "text_encoder": TextConfig(width=32, depth=2, num_heads=2)},
    "lit": {"embed_dim": 16, "text_encoder": TextConfig(width=32, depth=2, num_heads=2)},
    "captioner": {"decoder": TextConfig(width=32, depth=2, num_heads=2)},
    "siglip2": {
        "embed_dim": 16,
        "text_encoder": TextConfig(width=32, depth=2, num_heads=2),
        "decoder": TextConfig(width=32, depth=1, num_heads=2),
    },
    "fine_tuning": {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
}
"""Small ones, so that the tests take seconds; without what keeps a batch from being learned by heart."""
HIDING = {"hidden_by": (RandomMask(), ClusterMask(threshold=0.3))}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "mask_distance": HIDING,
    "objects_left": HIDING,
    "what_is_left": HIDING,
    "attentive_probe": {"epochs": 2},
    "captioning": {
        **HIDING,
        "epochs": 2,
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "num_beams": 2,
    },
}
"""What protocols need to be told, or are small by."""
