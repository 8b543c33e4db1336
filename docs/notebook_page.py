"""Turns an executed notebook into a page: its text as it is, its code and what the code printed as blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def write_page(notebook: Path, page: Path) -> None:
    """Write a notebook's cells as Markdown.

    Args:
        notebook: nbformat 4, executed; cells print text alone.
        page: the file to write.

    Raises:
        ValueError: a code cell was not executed, failed, or shows something else than text.
    """
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            if cell["execution_count"] is None:
                raise ValueError(f"{notebook.name} has a cell that was not executed: run `make tutorial`")
            parts.append(f"```python\n{source}\n```")
            parts += [f"```text\n{_printed(output, notebook)}\n```" for output in cell["outputs"]]
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _printed(output: dict[str, Any], notebook: Path) -> str:
    if output["output_type"] != "stream" or output["name"] != "stdout":
        raise ValueError(f"{notebook.name} shows an output of type {output['output_type']}; its page takes printed text alone")
    return "".join(output["text"]).strip("\n")
