"""Image encoders, one per file (a new file needs no other edit), and the text encoder."""

from vlp.encoders.image_encoder import IMAGE_ENCODERS, ImageEncoder, ImageEncoderConfig
from vlp.registry import import_modules

__all__ = ["IMAGE_ENCODERS", "ImageEncoder", "ImageEncoderConfig"]

import_modules(__name__, __path__)
