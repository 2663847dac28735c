"""Image encoders, one per file (a new file needs no other edit), and the text encoder.

timm is imported where a model is built: it takes 1.7 s, and reading a configuration needs none of it.
"""

from vlp.core.registry import import_modules
from vlp.encoders.image_encoder import IMAGE_ENCODERS, ImageEncoder, ImageEncoderConfig

__all__ = ["IMAGE_ENCODERS", "ImageEncoder", "ImageEncoderConfig"]

import_modules(__name__, __path__)
