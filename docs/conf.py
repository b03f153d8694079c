"""How Sphinx makes the site out of these pages: `nox -s docs`.

The site asks no other host for anything: no fonts, no scripts, no inventories of other sites.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tallymark

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "tallymark"
author = "the authors of tallymark"
project_copyright = f"2026, {author}"
version = release = tallymark.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    # In the folder _ext:
    "docstrings",
    "links",
    "site_search",
    "llms",
]
exclude_patterns = ["_ext"]
templates_path = ["_templates"]
suppress_warnings = ["myst.xref_ambiguous"]  # a word that is both a heading and a name of ours

# Markdown. Headings have the anchors that GitHub gives them, so links work at both places.
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
highlight_language = "none"
# Terminals of the docs: commands behind "$ ", and what they print.
highlight_options = {"console": {"stripnl": False}}

# The reference. Names in single backticks are links to it.
default_role = "py:obj"
nitpicky = True
add_module_names = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 72
toc_object_entries_show_parents = "hide"
autodoc_class_signature = "mixed"
autoclass_content = "both"  # what __init__ takes, if it says so itself
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

# The looks.
html_theme = "furo"
html_title = f"tallymark {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_copy_source = False  # the extension llms writes each page's Markdown beside it
html_show_sourcelink = False
html_use_index = True
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0b57a4",
        "color-brand-content": "#0b57a4",
        "font-stack": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
        "font-stack--monospace": "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', "
        "'Liberation Mono', monospace",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7db7f5",
        "color-brand-content": "#7db7f5",
    },
    "navigation_with_keys": True,
}
pygments_style = "tango"
pygments_dark_style = "github-dark"
