"""Models that other libraries wrote, as ours: a file per library, which registers itself."""

from vlp.core.registry import import_modules
from vlp.imports.library import LIBRARIES, Library, library_of, set_weights

import_modules(__name__, __path__)

__all__ = ["LIBRARIES", "Library", "library_of", "set_weights"]
