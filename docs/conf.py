"""Configuration of Sphinx: `sphinx-build -W -b html docs OUT`."""

import re

import jaxcxr

project = "jaxcxr"
author = "the jaxcxr authors"
release = jaxcxr.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.apidoc"]
highlight_language = "text"
html_theme = "furo"
html_title = "jaxcxr"
exclude_patterns = ["results", "examples", "_build"]
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3

# One page for each module that other programs may import; these rooms are parts of commands.
_INNER = (
    "bench", "commands", "study", "deploy/serve", "xray/audit", "xray/explain", "xray/phantom",
    "xray/report", "pose/formats", "pose/keypoints", "pose/phantom", "pose/player", "pose/report",
)

apidoc_modules = [{
    "path": "../jaxcxr",
    "destination": "api",
    "exclude_patterns": [f"../jaxcxr/{room}" for room in _INNER],
    "separate_modules": True,
    "implicit_namespaces": False,
    "module_first": True,
    "automodule_options": {"members", "show-inheritance"},
    "no_headings": False,
}]
# Libraries that only some users have, and names that several classes share.
autodoc_mock_imports = ["apache_beam", "tensorflow"]
suppress_warnings = ["ref.python"]
# A function stands on the page of the module that defines it.
autodoc_default_options = {"member-order": "bysource", "ignore-module-all": True}
# Types stand in the signature; classes of libraries have no pages here to refer to.
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
_SECTION = re.compile(r"^\w+:$")


def as_restructured_text(app, what, name, obj, options, lines):
    """Turns the Markdown of docstrings into reStructuredText: code, and what only looks special."""
    parts = _CODE.split("\n".join(literal_blocks(lines)))
    for i, part in enumerate(parts):
        if i % 2:
            glue = "\\ " if parts[i + 1][:1].isalnum() else ""
            parts[i] = f"``{' '.join(part.strip('`').split())}``{glue}"
        else:
            parts[i] = re.sub(r"([*|])|(?<=\w)(_)(?!\w)", r"\\\1\2", part)
    lines[:] = "".join(parts).split("\n")


def literal_blocks(lines):
    """Marks indented blocks outside of sections and lists as literal: formulas, tables."""
    result, text, inside = [], "", False  # text: the last line that is not indented
    for previous, line in zip(["", *lines], lines, strict=False):
        if line.strip() and not line.startswith("  "):
            if inside or (line.startswith("- ") and previous.strip() and not text.startswith("- ")):
                result.append("")
            text, inside = line, False
        elif (
            line.strip() and not inside and not _SECTION.match(text)
            and (line.startswith("    ") or not text.startswith("- "))
        ):
            result += ["", "::", ""]
            inside = True
        result.append(line)
    return result


def setup(app):
    """Registers the reader of docstrings; napoleon runs after it."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
