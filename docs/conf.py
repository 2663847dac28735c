"""How Sphinx makes the manual: `make docs`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import vlp

project = "vlp"
author = "the developers of vlp"
version = release = vlp.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"vlp {version}"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_show_sourcelink = False

default_role = "literal"
"""Docstrings name code between single backticks."""
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "ignore-module-all": True}
