"""Sphinx configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes

import medvl


def _made_parts() -> dict[str, str]:
    """Parts of pages by name, from the results in evidence/ and the notebooks in tutorials/; writes the notebooks' pages."""
    docs = Path(__file__).parent
    sys.path[:0] = [str(docs), str(docs.parent)]
    from gallery_pages import write_gallery
    from methods_table import methods_table

    notebooks = sorted((docs.parent / "tutorials").glob("*.ipynb"))
    return {"methods_table": methods_table(), "gallery": write_gallery(docs / "gallery", notebooks)}


project = "medvl"
author = "The medvl authors"
copyright = "the medvl authors"
release = version = medvl.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # equations without a network
]
highlight_language = "none"  # of blocks that name none: the equations of docstrings
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_substitutions = _made_parts()
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = "medvl"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_center": [],  # the pages are in the sidebar
}
html_sidebars = {"**": ["pages"]}
html_css_files = ["medvl.css"]
html_search_scorer = str(Path(__file__).parent / "search_scorer.js")
html_static_path = ["_static"]
templates_path = ["_templates"]
html_show_sourcelink = False

# Builds do not wait for a network: docs/make_inventories.py wrote where the names that we refer to are documented.
_PROJECTS = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "monai": "https://docs.monai.io/en/stable/",
    "ignite": "https://docs.pytorch.org/ignite/",
    "transformers": "https://huggingface.co/docs/transformers/",
    "huggingface_hub": "https://huggingface.co/docs/huggingface_hub/",
}
intersphinx_mapping = {name: (url, (f"inventories/{name}.inv",)) for name, url in _PROJECTS.items()}

toc_object_entries_show_parents = "hide"
autosummary_generate = False  # its tables only, by _summarize_package
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpicky = True
nitpick_ignore = [
    ("py:class", "array"),  # array.array of the standard library, which autodoc shortens
    ("py:class", "torch.nn.modules.batchnorm._NormBase"),  # has no page
    ("py:class", "medvl.functional.zero_shot.Values"),  # a type variable
    ("py:class", "medvl.data.study_columns.Column"),  # a protocol of a module without public names
    ("py:class", "medvl.data.public.base.DatasetType"),  # a type variable
    ("py:class", "medvl.data.public.base.ImagesElsewhere"),  # a base class, with nothing to call
]


def _show_factories(app, what, name, obj, options, signature, return_annotation):
    """A field of a dataclass whose default is made anew has the default ``<factory>``, which no parser of Python reads."""
    return (signature or "").replace("<factory>", "...") or signature, return_annotation


def _name_files_of_diffs(app, doctree):
    """The head of a difference names its two files by absolute paths of this machine; keep their names."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "udiff":
            head, rest = block.rawsource.split("@@", 1)
            paths = [Path(line.split(maxsplit=1)[1].rstrip()) for line in head.splitlines()]
            text = f"--- {paths[0].name}\n+++ {paths[1].name}\n@@{rest}"
            block.rawsource, block.children = text, [nodes.Text(text)]


def _is_other_name(member: str, value: Any) -> bool:
    """Whether a name is MONAI's second or third of a dictionary transform, such as LabelReportD for LabelReportd."""
    return member.endswith(("D", "Dict")) and getattr(value, "__name__", member) != member


def _skip_other_names(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave them out of the API: a page of them says the same thrice."""
    return True if what == "module" and _is_other_name(name, obj) else None


def _summarize_package(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put a table of a package's public classes and functions behind its docstring."""
    if what == "module" and (Path(__file__).parent / "api" / f"{name.removeprefix('medvl.')}.md").is_file():
        members = {member: getattr(obj, member) for member in obj.__all__}
        public = [
            member
            for member, value in members.items()
            if getattr(value, "__module__", "").startswith("medvl.") and not _is_other_name(member, value)
        ]
        lines += ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {member}" for member in public), ""]


def setup(app: Any) -> None:
    """Connect what Sphinx has no option for."""
    app.connect("autodoc-process-signature", _show_factories)
    app.connect("autodoc-process-docstring", _summarize_package)
    app.connect("autodoc-skip-member", _skip_other_names)
    app.connect("doctree-read", _name_files_of_diffs)
