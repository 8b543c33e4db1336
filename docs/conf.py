"""Sphinx configuration; writes the configuration reference and the page of the tutorial before each build."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from configuration_reference import write_reference  # noqa: E402
from notebook_page import write_page  # noqa: E402

from recbole_hnlm import __version__  # noqa: E402

project = "recbole-hnlm"
author = "The recbole-hnlm developers"
copyright = "2026, the recbole-hnlm developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
# What is generated is included by a page that has the place of its name.
exclude_patterns = ["_build", "generated"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_attr_annotations = False

write_reference(HERE / "generated" / "settings.md")
write_page(HERE / "tutorial.ipynb", HERE / "generated" / "tutorial.md")
