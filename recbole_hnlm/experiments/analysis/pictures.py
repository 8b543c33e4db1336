"""Analyses as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.analysis.group_picture import draw_groups
from recbole_hnlm.experiments.analysis.method_pictures import draw_beyond, draw_epochs
from recbole_hnlm.experiments.analysis.semantic_pictures import draw_nearest, draw_shift
from recbole_hnlm.utils.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recbole_hnlm.experiments.analysis.panels import Methods

__all__ = ["draw_pictures"]

_PICTURES = {
    "groups.png": draw_groups,
    "beyond_accuracy.png": draw_beyond,
    "epochs.png": draw_epochs,
    "semantic_negatives.png": draw_nearest,
    "semantic_shift.png": draw_shift,
}


def draw_pictures(analyses: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Draw what one or several analyses of a dataset hold; runs of one method are averaged.

    Returns:
        Names of the files; a picture without data is left out, and those of semantic negatives are of single runs.

    Raises:
        ArtifactError: a picture cannot be written.
    """
    methods: Methods = {}
    for analysis in analyses:
        methods.setdefault(analysis["label"], []).append(analysis)
    written = []
    for name, draw in _PICTURES.items():
        figure = draw(methods)
        if figure is not None:
            with replacing(folder / name) as partial:
                figure.savefig(partial, format="png", dpi=130)
            written.append(name)
    return written
