"""How others keep sets of images, one layout per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.layouts.layout import LAYOUTS, Layout

__all__ = ["LAYOUTS", "Layout"]

import_modules(__name__, __path__)
