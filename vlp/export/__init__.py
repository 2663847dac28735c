"""Trained models for other libraries: a file per format, which registers itself."""

from vlp.core.registry import import_modules
from vlp.export.format import FORMATS, ExportFormat, export

import_modules(__name__, __path__)

__all__ = ["FORMATS", "ExportFormat", "export"]
