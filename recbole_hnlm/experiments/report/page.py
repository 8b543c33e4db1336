"""From the view of a page to HTML: one file that loads nothing, with a Content-Security-Policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from recbole_hnlm import __version__
from recbole_hnlm.experiments.report.text import tidy
from recbole_hnlm.experiments.report.view import Details, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from recbole_hnlm.experiments.report.view import Block, Page

__all__ = ["content_security_policy", "embedded_json", "render"]

# Characters of a text that are shown: of names, replies and values, and of what was meant to be long.
_LIMIT, _LONG_LIMIT = 600, 6000
# What would end a script element or a line of JavaScript inside JSON.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@cache
def _file(name: str) -> str:
    return (resources.files("recbole_hnlm.experiments.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def content_security_policy(script: str, stylesheet: str) -> str:
    """Return a policy that lets this script and this stylesheet work, and nothing else load, run, or send.

    Args:
        script: text of the page's only script element.
        stylesheet: text of its only style element.
    """
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(stylesheet),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def embedded_json(content: Any) -> Markup:
    """Return JSON for a ``<script type="application/json">`` element, in which nothing can end that element."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    clean = text.encode("utf-8", "replace").decode()
    return Markup(clean.translate(_ESCAPES))  # noqa: S704 - translated just now


def _finalize(value: Any) -> Any:
    """Tidy whatever the template prints, but for markup that this package made."""
    if isinstance(value, Markup) or value is None:
        return "" if value is None else value
    return tidy(str(value), _LIMIT)


def _long(value: str) -> Markup:
    """Escape a text that may be long: a prompt, a profile, a file."""
    return escape(tidy(value, _LONG_LIMIT))


def _tables(blocks: Iterable[Block]) -> Iterator[Table]:
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Details):
            yield from _tables(block.blocks)


def render(page: Page) -> str:
    """Return the HTML of a page; equal bytes for equal pages."""
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_file),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["long"] = _long
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    script, stylesheet = _file("report.js").strip(), _file("report.css").strip()
    downloads = {table.download: table.csv for section in page.sections for table in _tables(section.blocks) if table.download}
    html = environment.get_template("report.html").render(
        page=page,
        policy=content_security_policy(script, stylesheet),
        script=Markup(script),  # noqa: S704 - a file of this package
        stylesheet=Markup(stylesheet),  # noqa: S704 - a file of this package
        downloads=embedded_json(downloads),
        version=__version__,
    )
    return html.lstrip()
