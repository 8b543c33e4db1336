"""What all sections of the settings share: strictness, types of values, and the routes on which a key is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "FINETUNED_ROUTE",
    "LLM_ROUTES",
    "SHARED_NEGATIVES",
    "TEXT_ROUTE",
    "AtLeastOne",
    "NonNegative",
    "Positive",
    "Section",
    "Seed",
    "Share",
]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # NumPy's range

# Conditions for the fact ``when``.
TEXT_ROUTE = {"negative_route": ("text",)}
FINETUNED_ROUTE = {"negative_route": ("finetuned",)}
LLM_ROUTES = {"negative_route": ("text", "finetuned")}
SHARED_NEGATIVES = {"rank_loss": ("softmax", "bsl", "psl", "sl_at_k")}


class Section(BaseModel):
    """A group of keys of one concern."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    def section_problems(self) -> list[str]:
        """Return a line for each rule between keys of one section that does not hold; sections add theirs to ``super()``'s."""
        return []
