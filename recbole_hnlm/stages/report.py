"""What a stage made, counted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["StageCounts", "StageReport", "sum_if_known"]


def sum_if_known(counts: Iterable[int | None]) -> int | None:
    """Add up counts; None where one of them is not known."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


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
        prompt_tokens: tokens that the LLM read for the stage in this run: 0 where it was not asked, None where its server does
            not say. Fine-tuning and encoding ask nothing.
        completion_tokens: tokens that it wrote, likewise.
        tokens_of_all: tokens, read and written, that all replies of the stage cost in the runs that made them; None where
            that is unknown, as for replies that came from the cache.
    """

    total: int = 0
    reused: int = 0
    generated: int = 0
    missing: int = 0
    declined: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    tokens_of_all: int | None = 0

    def __add__(self, other: StageCounts) -> StageCounts:
        """Add up number by number; what is unknown of one is unknown of both."""
        names = [field.name for field in fields(StageCounts)]
        sums: dict[str, Any] = {name: sum_if_known((getattr(self, name), getattr(other, name))) for name in names}
        return StageCounts(**sums)


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
            f"{self.missing:,} missing{declined}{self._tokens()}, {self.seconds:.1f} s"
        )

    def _tokens(self) -> str:
        if not self.prompt_tokens or self.completion_tokens is None:
            return ""
        return f", {self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
