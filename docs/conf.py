"""The documentation as a site: `bash scripts/docs.sh` builds it into outputs/docs with Sphinx."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import generate  # noqa: E402

from continual import __version__  # noqa: E402

project = "continual"
author = "The continual developers"
version = release = __version__
extensions = ["myst_nb"]
exclude_patterns = ["results/*/report"]
myst_heading_anchors = 3
myst_links_external_new_tab = True
nb_execution_mode = "off"  # the tests execute the notebook
html_theme = "furo"
html_title = "continual"
html_copy_source = False
html_show_copyright = False

generate.write(HERE / "reference")
