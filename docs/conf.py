"""How Sphinx builds the documentation: `make docs`."""

import bws

project = "bws"
author = "the bws authors"
copyright = "2026, the bws authors"
release = bws.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# A build needs no network: intersphinx would fetch the inventories of other projects.
exclude_patterns = ["_build"]
html_static_path = ["_static"]
html_css_files = ["bws.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# '' is an empty string, not a quotation mark
smartquotes = False
# `name` in a docstring
default_role = "code"

html_theme = "furo"
# the reference is one page, in an order of its own
html_domain_indices = False
html_title = f"bws {release}"
