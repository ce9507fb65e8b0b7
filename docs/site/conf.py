"""Sphinx's settings: see `build.py`, which calls it."""

from __future__ import annotations

import nodebench

project = "nodebench"
copyright = "the nodebench authors"  # noqa: A001 - Sphinx's name for it
release = nodebench.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
language = "en-GB"

html_theme = "furo"
html_title = f"nodebench {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f5fa8",
        "color-brand-content": "#1f5fa8",
        "color-brand-visited": "#1f5fa8",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7db4f0",
        "color-brand-content": "#7db4f0",
        "color-brand-visited": "#7db4f0",
    },
}
pygments_style, pygments_dark_style = "friendly", "github-dark"

myst_heading_anchors = 4
myst_links_external_new_tab = False
highlight_language = "text"

default_role = "code"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
