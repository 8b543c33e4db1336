"""Figures of Matplotlib as inline SVG: colours by CSS class, so that a page's scheme decides; no style attribute."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FAINT", "GRID", "INK", "MARKERS", "SERIES", "inline_svg", "new_figure", "style"]

# Colours that Matplotlib is told and the page replaces by classes: the palette of Okabe and Ito, which colour-blind readers can
# tell apart; the stylesheet has its own shade of each for dark and for light.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a00", "#8c564b", "#5f5f5f", "#9467bd")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
INK, FAINT, GRID = "#101112", "#606162", "#d0d1d2"
_CLASSES = {**{colour: f"s{place}" for place, colour in enumerate(SERIES)}, INK: "ink", FAINT: "faint", GRID: "grid"}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NUMBERS = frozenset({"d", "x", "y", "transform", "width", "height", "points"})
_DEFAULTS = frozenset({("stroke-miterlimit", "10"), ("opacity", "1")})
_LONG_DECIMAL = re.compile(r"(\d+\.\d\d)\d+")

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": "medium",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "path.simplify": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches in the page's style."""
    with mpl.rc_context(_STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def style() -> Any:
    """Return the context in which axes of :func:`new_figure` must be made, so that they take the page's style."""
    return mpl.rc_context(_STYLE)


def inline_svg(figure: Figure, name: str, label: str) -> Markup:
    """Return a figure as an ``<svg>`` element, equal bytes for equal figures.

    Args:
        figure: of :func:`new_figure`.
        name: unique on the page; ids inside begin with it.
        label: what a screen reader says of the picture.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        # Not savefig, which draws a figure with a layout twice.
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - Matplotlib's own output
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}:
                parent.remove(child)
    ids = {element.get("id"): f"{name}-{place}" for place, element in enumerate(root.iter()) if element.get("id")}
    used = set(_used_ids(root))
    for element in root.iter():
        _plain_element(element, ids, used)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", label)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return Markup(re.sub(r"\n\s*", "\n", ET.tostring(root, encoding="unicode")))  # noqa: S704 - escaped by ElementTree


def _used_ids(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith("href"):
                yield value.removeprefix("#")
            yield from re.findall(r"url\(#([^)]+)\)", value)


def _plain_element(element: ET.Element, ids: dict[str | None, str], used: set[str]) -> None:
    """Turn a style attribute into attributes and classes, round numbers, and make ids those of this figure."""
    declared = dict(part.split(":", 1) for part in element.attrib.pop("style", "").split(";") if ":" in part)
    classes = [found for key, value in declared.items() if (found := _declare(element, key.strip(), value.strip()))]
    if element.tag == f"{{{_SVG}}}text" and not any(each.startswith("f-") for each in classes):
        classes.append("f-ink")
    if classes:
        element.set("class", " ".join(classes))
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.attrib.pop(name)
            if value in used:
                element.set(name, ids[value])
        elif name.endswith("href"):
            element.set(name, f"#{ids[value.removeprefix('#')]}")
        elif "url(#" in value:
            element.set(name, re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", value))
        elif name in _NUMBERS:
            element.set(name, _LONG_DECIMAL.sub(r"\1", value).replace("\n", " "))


def _declare(element: ET.Element, key: str, value: str) -> str | None:
    """Give an element what a declaration of its style says; returns a class where a class says it."""
    kind = {"fill": "f", "stroke": "k"}.get(key)
    if kind and value.lower() in _CLASSES:
        return f"{kind}-{_CLASSES[value.lower()]}"
    if key == "font":
        element.set("font-size", f"{float(value.split('px', maxsplit=1)[0].rsplit(maxsplit=1)[-1]):g}")
        if "bold" in value or "700" in value:
            element.set("font-weight", "700")
    elif (key, value) not in _DEFAULTS:
        element.set(key, value)
    return None
