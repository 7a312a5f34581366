"""Configuration of Sphinx. Nothing here or in what it builds needs a network."""

import inspect
import os
from importlib.metadata import version as installed_version

# The gallery's figures are those of one thread, as fast as on a laptop.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "skreg"
author = "The skreg developers"
project_copyright = author
release = version = installed_version("skreg")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery"]
templates_path = ["_templates"]
# A reference to something of skreg that is not there is a mistake. What scikit-learn,
# torch and others have is not looked up: that would need their sites.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!skreg\.).*")]

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it, with shapes
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "inherited-members": True}
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("skreg",),
    "reference_url": {"skreg": None},
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    # The figure stands there: no need to name the object that drew it.
    "ignore_repr_types": r"skreg\.displays|list",
}

html_theme = "pydata_sphinx_theme"
html_title = "skreg"
html_static_path = ["_static"]
html_css_files = ["skreg.css"]
toc_object_entries_show_parents = "hide"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}


def skip_what_others_wrote(app, what, name, obj, skip, options):
    """List the methods and properties of skreg; skorch and torch list theirs."""
    if what != "class":
        return None
    function = obj.fget if isinstance(obj, property) else inspect.unwrap(obj)
    if not inspect.isroutine(function):
        return True
    module = getattr(function, "__module__", None) or ""
    return True if not module.startswith("skreg") else None


def write_inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def write_block_math(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app):
    app.connect("autodoc-skip-member", skip_what_others_wrote)
    app.add_html_math_renderer(
        "mathml", (write_inline_math, None), (write_block_math, None)
    )
