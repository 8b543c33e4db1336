"""What a page consists of: plain values, which the template turns into HTML and nothing else has to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

__all__ = [
    "Block",
    "Cell",
    "Code",
    "Column",
    "Details",
    "Facts",
    "Keys",
    "Listing",
    "Note",
    "Page",
    "People",
    "Person",
    "Plot",
    "Plots",
    "Reply",
    "Section",
    "Table",
    "Tile",
    "Tone",
]

Tone = Literal["win", "loss", "tie", "plain"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        is_number: aligned to the right, sorted as numbers.
        help: shown when the pointer or the focus is on the heading.
    """

    name: str
    is_number: bool = False
    help: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown.
        sort: number to sort by, where ``text`` is not one.
        is_best: shown in bold.
        stars: marks of significance behind the text.
        hint: numbers behind it, shown on hover.
        tag: a small label behind the text.
        picture: an inline picture instead of the text.
    """

    text: str
    sort: float | None = None
    is_best: bool = False
    stars: str = ""
    hint: str = ""
    tag: str = ""
    picture: Markup | None = None


@dataclass(frozen=True)
class Table:
    """A table that can be sorted and downloaded.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: as many cells each as there are columns; the first names the row.
        legend: lines below it.
        download: name of the CSV file, or empty for none.
        csv: content of that file.
        searchable: whether a box filters its rows.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    legend: Sequence[str] = ()
    download: str = ""
    csv: str = ""
    searchable: bool = False


@dataclass(frozen=True)
class Plot:
    """An inline SVG.

    Attributes:
        title: heading.
        svg: the picture.
        caption: what to look at, in words; also what a screen reader says.
        wide: over the whole width.
    """

    title: str
    svg: Markup
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Plots:
    """Pictures beside each other."""

    plots: Sequence[Plot]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Keys:
    """Keys of the configuration with their values, as JSON, searchable."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Note:
    """A paragraph; ``code`` is a command below it."""

    text: str
    code: str = ""
    is_warning: bool = False


@dataclass(frozen=True)
class Code:
    """Commands or text in a fixed width."""

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Listing:
    """A list of items, in order.

    Attributes:
        title: heading.
        items: text, and a mark behind it (``""`` for none).
        more: how many are left out.
        is_ranked: whether they are numbered.
    """

    title: str
    items: Sequence[tuple[str, str]]
    more: int = 0
    is_ranked: bool = False


@dataclass(frozen=True)
class Reply:
    """A hard negative that the LLM named.

    Attributes:
        about: the item that it is a negative for.
        names: what the LLM said.
        reasoning: why, in its words.
        nearest: nearest real items, each with its cosine and relation to the user.
    """

    about: str
    names: Sequence[str]
    reasoning: str
    nearest: Sequence[tuple[str, float, str]]


@dataclass(frozen=True)
class Person:
    """A sample user.

    Attributes:
        name: raw id.
        summary: one line.
        lists: history, what was held out, recommendations.
        told: prompt, in parts with headings.
        said: profile, in parts with headings.
        replies: hard negatives.
        notes: what is missing, and why.
    """

    name: str
    summary: str
    lists: Sequence[Listing]
    told: Sequence[tuple[str, str]] = ()
    said: Sequence[tuple[str, str]] = ()
    replies: Sequence[Reply] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class People:
    """Sample users."""

    people: Sequence[Person]


Block = Table | Plots | Facts | Keys | Note | Code | Details | People


@dataclass(frozen=True)
class Section:
    """A part of the page, linked from its head."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A number at the top."""

    value: str
    label: str


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        title: of the document.
        kicker: what it is a report of, above the verdict.
        verdict: one sentence.
        tone: whether it is good news.
        remarks: what a reader must know with the verdict.
        tiles: numbers at the top.
        sections: in order; the best table belongs to the first.
    """

    title: str
    kicker: str
    verdict: str
    tone: Tone
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    remarks: Sequence[str] = field(default_factory=tuple)
