"""Settings of the documentation: ``sphinx-build -W -b html docs docs/_build/html``."""

import os
import warnings

os.environ["MPLBACKEND"] = "Agg"

import skreg

project = "skreg"
author = "The skreg developers"
copyright = "The skreg developers"
release = version = skreg.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.rst"]
html_theme = "pydata_sphinx_theme"
html_title = "skreg"
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
html_sidebars = {"index": [], "notebook": []}

autosummary_generate = True
autodoc_default_options = {"members": False, "inherited-members": False}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Inherited docstrings refer to labels of scikit-learn's own site.
suppress_warnings = ["ref.ref"]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "download_all_examples": False,
    "show_memory": False,
    "abort_on_example_error": True,
}

# Small nets stop before they have converged; that is what the examples are about.
warnings.filterwarnings("ignore", category=UserWarning, module="torch")
