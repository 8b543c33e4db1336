"""Run the code cells of a notebook in order in this process and store what they print: ``python tools/tutorial.py FILE [OUT]``.

A notebook that prints text alone needs neither Jupyter nor a kernel to be executed. What goes to standard error is not stored.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["execute", "main"]


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Execute the code cells of a notebook (nbformat 4) in order, as one program; returns it with its new outputs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        count += 1
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("".join(cell["source"]), f"cell {count}", "exec"), names)  # noqa: S102 - this repository's own code
        lines = printed.getvalue().splitlines(keepends=True)
        outputs = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
        cells.append({**cell, "execution_count": count, "outputs": outputs})
    return {**notebook, "cells": cells}


def main(argv: list[str]) -> int:
    """Execute a notebook in an empty folder and write it; returns 0."""
    source, target = (Path(argv[0]).resolve(), Path(argv[-1]).resolve())
    notebook = json.loads(source.read_text(encoding="utf-8"))
    start = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            done = execute(notebook)
        finally:
            os.chdir(start)
    target.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
