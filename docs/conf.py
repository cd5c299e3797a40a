"""How the manual is built: `make docs`. Nothing is fetched; tables, helps and diagrams are drawn from the code."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from headlessconn import __version__  # noqa: E402

project = "headlessconn"
author = "the headlessconn authors"
copyright = "the headlessconn authors, Apache-2.0"  # noqa: A001
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"headlessconn {version}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
