"""What a stage did."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StageReport"]


@dataclass(frozen=True)
class StageReport:
    """Counts and time of one stage.

    Attributes:
        name: ``profile``, ``negatives`` or ``encode``.
        seconds: wall-clock time.
        total: replies or vectors that the stage stands for.
        reused: of these, the ones that were there already (finished artefacts, cached replies, a resumed store).
        generated: of these, the ones made now.
        missing: of these, the ones without a valid reply; they have no vector.
        declined: hard negatives that name no other item ("None", or the positive's own title); valid replies without a
            vector, part of ``total``.
    """

    name: str
    seconds: float
    total: int
    reused: int
    generated: int
    missing: int
    declined: int = 0

    def __str__(self) -> str:
        declined = f", {self.declined:,} name no other item" if self.declined else ""
        return (
            f"stage {self.name}: {self.total:,} in all, {self.reused:,} reused, {self.generated:,} generated, "
            f"{self.missing:,} missing{declined}, {self.seconds:.1f} s"
        )
