"""What a stage made, counted."""

from __future__ import annotations

from dataclasses import astuple, dataclass

__all__ = ["StageCounts", "StageReport"]


@dataclass(frozen=True)
class StageCounts:
    """What a stage made.

    Attributes:
        total: prompts, texts, pairs or steps in all.
        reused: of these, the ones that were there before.
        generated: of these, the ones made now.
        missing: of these, the ones without a valid reply; they have no vector.
        declined: hard negatives that name no other item ("None", or the positive's own title); valid replies without a
            vector, part of ``total``.
    """

    total: int = 0
    reused: int = 0
    generated: int = 0
    missing: int = 0
    declined: int = 0

    def __add__(self, other: StageCounts) -> StageCounts:
        """Add up number by number."""
        return StageCounts(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, kw_only=True)
class StageReport(StageCounts):
    """Counts and time of one stage.

    Attributes:
        name: the stage's.
        seconds: wall-clock time.
    """

    name: str
    seconds: float

    def __str__(self) -> str:
        declined = f", {self.declined:,} name no other item" if self.declined else ""
        return (
            f"stage {self.name}: {self.total:,} in all, {self.reused:,} reused, {self.generated:,} generated, "
            f"{self.missing:,} missing{declined}, {self.seconds:.1f} s"
        )
