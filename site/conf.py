"""The site: docs/ with the executed notebooks, and the reference of pwmlib from its docstrings. `make site` builds it, without network."""

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import pwmlib.settings  # noqa: E402

project = "A companion to PWM"
html_title = project
author = copyright = "the pwmlib authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
viewcode_follow_imported_members = False
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["use/README.md"]
autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_type_aliases = {name: name for name in pwmlib.settings.__all__}
napoleon_numpy_docstring = False
# Notebooks as executed show what papermill injected; names in backticks are code, not roles.
suppress_warnings = ["myst.header", "myst.xref_missing", "misc.highlighting_failure", "ref.python"]

REPOSITORY = os.environ.get("SITE_REPOSITORY", "").rstrip("/")
"""Where files that are not on the site can be read, such as https://example.org/owner/name/blob/main; without it they are named only."""
IN_A_BROWSER = ("pages/00_ball_wall", "pages/05_gradient_estimators")
"""Notebooks that install the project themselves: where the repository is on GitHub, their pages begin with links to Colab and Binder."""


def links(app, page, source):
    """Point links at modules to their reference, and those at other files outside docs/ to the repository."""

    def target(match):
        text, path, anchor = match[1], match[2], match[3] or ""
        outside = os.path.normpath(os.path.join("docs", os.path.dirname(page), path))
        if path.startswith(("http", "#")) or (outside.startswith("docs") and (PROJECT / outside).exists()):
            return match[0]
        if outside.startswith("pwmlib") and outside.endswith(".py"):
            up = "../" * page.count("/")
            return f"[{text}]({up}api/{outside.removesuffix('.py').replace('/', '.').removesuffix('.__init__')}.rst)"
        return f"[{text}]({REPOSITORY}/{outside}{anchor})" if REPOSITORY else text

    if page in IN_A_BROWSER and (found := re.fullmatch(r"https://github\.com/([^/]+/[^/]+)/blob/(.+)", REPOSITORY)):
        (name, branch), notebook = found.groups(), page.replace("pages/", "notebooks/") + ".ipynb"
        colab = f"https://colab.research.google.com/github/{name}/blob/{branch}/{notebook}"
        binder = f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{notebook}"
        source[0] = f"In your browser: [Colab]({colab}), [Binder]({binder}).\n\n{source[0]}"
    source[0] = re.sub(r"(?<!!)\[([^\[\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)", target, source[0])


attributes = {}
"""Name -> lines of its docstring before Napoleon reads them, from `plain` to `sentences`."""


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text with code in single backticks, not reStructuredText."""
    text = re.sub(r"([|*])", r"\\\1", "\n".join(lines))
    lines[:] = re.sub(r"`([^`]+)`(\w?)", lambda m: f"``{m[1]}``" + (f"\\ {m[2]}" if m[2] else ""), text).split("\n")
    attributes[name] = list(lines)


def sentences(app, what, name, obj, options, lines):
    """Napoleon reads "a: b" of an attribute as a type and its description; ours are sentences."""
    if what in ("attribute", "data", "property"):
        lines[:] = attributes[name]


def mathml(self, node):
    """Write a formula as MathML, which browsers draw themselves."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    self.body.append(f'<span class="{display}-formula">{convert(node.astext(), display=display)}</span>')
    raise nodes.SkipNode


def setup(app):
    """Register them."""
    app.connect("source-read", links)
    app.connect("autodoc-process-docstring", plain, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", sentences, priority=900)
    app.set_translator("html", _translator(app))


def _translator(app):
    from sphinx.writers.html5 import HTML5Translator

    return type("Translator", (HTML5Translator,), {"visit_math": mathml, "visit_math_block": mathml})
