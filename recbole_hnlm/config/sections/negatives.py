"""Which negatives training sees: the route of the semantic ones, the sampler of the plain ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import FINETUNED_ROUTE, LLM_ROUTES, AtLeastOne, NonNegative, Positive, Section
from recbole_hnlm.utils.names import did_you_mean
from recbole_hnlm.utils.registry import get_negative_sampler, is_import_path, negative_sampler_names

__all__ = ["NegativeKeys"]


def _known_negative_sampler(name: str) -> str:
    names = negative_sampler_names()
    if name not in names and not is_import_path(name):
        raise ValueError(f"should be one of {', '.join(names)}{did_you_mean(name, names)}")
    return name


class NegativeKeys(Section):
    """The route, the sampler, and each sampler's own keys."""

    negative_route: Literal["none", "text", "finetuned"] = key(
        "text",
        Affects.REPLIES | Affects.VECTORS | Affects.TRAINING,
        Reader.TEXTS,
        off=("none",),
        description="Where z_ui comes from: none (no LLM at all), text (an LLM names an item, an encoder embeds it) or "
        "finetuned (the LLM is fine-tuned and emits the vector).",
    )
    semantic_negatives_per_user: AtLeastOne | None = key(
        1,
        Affects.REPLIES,
        Reader.SEMANTIC,
        when=LLM_ROUTES,
        description="Training pairs of a user that get a semantic negative; null means every training pair.",
    )
    semantic_users: AtLeastOne | Literal["auto"] | None = key(
        "auto",
        Affects.REPLIES,
        Reader.SEMANTIC,
        when=LLM_ROUTES,
        description="Users who get semantic negatives; null means every user, auto 150 where the embedded LLM writes "
        "(negative_route text) and every user otherwise.",
    )
    semantic_candidates: Annotated[int, Field(ge=0)] = key(
        0,
        Affects.TRAINING,
        Reader.SEMANTIC,
        when=FINETUNED_ROUTE,
        off=(0,),
        description="Real items nearest to z_ui of which one, drawn anew, joins a positive's candidates; 0 adds none.",
    )
    negative_sampler: Annotated[str, AfterValidator(_known_negative_sampler)] = key(
        "dns",
        Affects.TRAINING,
        Reader.OURS,
        description="How the plain negative item is chosen; the names are in docs/method.md, section 3.",
    )
    num_candidates: AtLeastOne = key(
        8,
        Affects.TRAINING,
        Reader.OURS,
        unless={"negative_sampler": ("uniform", "popularity")},
        description="Candidates per positive for every sampler that chooses; rows drawn per positive by in_batch.",
    )
    popularity_alpha: NonNegative = key(
        0.75,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("popularity",)},
        description="Power of an item's count in the popularity sampler.",
    )
    dns_top: AtLeastOne = key(
        2,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("dns_mn",)},
        description="N of dns_mn: the negative is one of the N hardest candidates.",
    )
    ahns_alpha: NonNegative = key(
        1.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("ahns",)},
        description="Shift of the positive's score in ahns.",
    )
    ahns_beta: Positive = key(
        10.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("ahns",)},
        description="Scale of the score that ahns looks for.",
    )
    ahns_p: Annotated[float, Field(lt=-1.0)] = key(
        -2.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("ahns",)},
        description="Power of ahns, below -1; the lower, the faster hardness falls as a positive scores better.",
    )
    count_false_negatives: bool = key(
        False,
        Affects.EVALUATION,
        Reader.OURS,
        off=(False,),
        description="Count the chosen negatives that validation or test hold as positives; training never reads the counts.",
    )
    dens_gamma: NonNegative = key(
        0.3,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("dens",)},
        description="Weight of the disentangling loss of dens.",
    )
    dens_warmup_epochs: AtLeastOne = key(
        100,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("dens",)},
        description="Epochs over which dens turns from candidates of irrelevant factors to those without relevant ones.",
    )
    srns_alpha: NonNegative = key(
        1.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("srns",)},
        description="Weight of the spread over epochs in srns, once warmed up.",
    )
    srns_warmup_epochs: AtLeastOne = key(
        10,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("srns",)},
        description="Epochs over which the weight of srns rises from 0.",
    )
    srns_temperature: Positive = key(
        1.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("srns",)},
        description="Temperature of the scores by which srns renews its memory.",
    )
    guard_weight: NonNegative = key(
        0.25,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("semantic_guard",)},
        description="Weight of the standardised text similarity that semantic_guard subtracts from the standardised score.",
    )
    guard_drop_share: Annotated[float, Field(ge=0.0, lt=1.0)] = key(
        0.0,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("semantic_guard",)},
        description="Share of the candidates, those nearest to the user's text, that semantic_guard drops.",
    )
    dtl_structure_weight: NonNegative = key(
        0.1,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("dtl",)},
        description="Weight of the nearness to the positive in the tree of who interacted, in dtl.",
    )
    dtl_text_weight: NonNegative = key(
        0.3,
        Affects.TRAINING,
        Reader.OURS,
        when={"negative_sampler": ("dtl",)},
        description="Weight of the nearness to the positive in the tree of texts, in dtl.",
    )

    def section_problems(self) -> list[str]:
        """A sampler needs candidates to choose from."""
        problems = []
        least = get_negative_sampler(self.negative_sampler).least_candidates
        if self.num_candidates < least:
            problems.append(
                f"negative_sampler {self.negative_sampler} needs num_candidates >= {least}, got {self.num_candidates}"
            )
        if self.negative_sampler == "dns_mn" and self.dns_top > self.num_candidates:
            problems.append(f"dns_top is {self.dns_top}, expected at most num_candidates, {self.num_candidates}")
        return [*super().section_problems(), *problems]
