"""The fine-tuned route: its teacher, what the LLM reads, and how it is fine-tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import FINETUNED_ROUTE, AtLeastOne, NonNegative, Positive, Section, Seed, Share

__all__ = ["FinetuneKeys", "TeacherKeys"]


class TeacherKeys(Section):
    """The collaborative model that supervises fine-tuning."""

    teacher_model: str = key(
        "HNLMLightGCN",
        Affects.TEACHER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Pairwise model that supervises fine-tuning; HNLM models train on dns negatives, without an LLM.",
    )
    teacher_epochs: AtLeastOne = key(
        30,
        Affects.TEACHER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Epochs that the teacher trains, on the training split alone.",
    )
    teacher_candidates: AtLeastOne = key(
        64,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Items that a user did not interact with among which a hard negative of fine-tuning is chosen.",
    )
    teacher_guard_share: Share = key(
        0.02,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Share of those candidates, highest teacher score first, that is skipped as likely false negatives.",
    )
    teacher_seed: Seed = key(
        0,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Seed of the candidates; independent of RecBole's seed.",
    )


class FinetuneKeys(Section):
    """Queries, LoRA layers and steps."""

    finetune_text: Literal["profiles", "titles"] = key(
        "profiles",
        Affects.REPLIES | Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Text of a query: the LLM's profiles, or titles of the user's items (no text is generated).",
    )
    finetune_from: str | None = key(
        None,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        place=True,
        description="Folder of an adapter fine-tuned on another dataset, to be used here without fine-tuning; null fine-tunes.",
    )
    finetune_template: Literal["plain", "chat"] = key(
        "plain",
        Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Form of a query: plain text, or the LLM's chat template.",
    )
    finetune_pooling: Literal["last", "mean"] = key(
        "last",
        Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Hidden states that make the vector: the last one, or the mean of all.",
    )
    finetune_layers: AtLeastOne | None = key(
        10,
        Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Layers of the LLM, from the first, that are run and fine-tuned; null runs all.",
    )
    finetune_soft_tokens: bool = key(
        True,
        Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Put projections of e_u and e_i into the query; false is text alone.",
    )
    finetune_max_length: AtLeastOne = key(
        192,
        Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Tokens of a query at most; the budgets must fit into it.",
    )
    finetune_user_tokens: AtLeastOne = key(
        48, Affects.QUERY, Reader.TEXTS, when=FINETUNED_ROUTE, description="Tokens of the user's text at most."
    )
    finetune_title_tokens: AtLeastOne = key(
        24, Affects.QUERY, Reader.TEXTS, when=FINETUNED_ROUTE, description="Tokens of an item's title at most."
    )
    finetune_item_tokens: AtLeastOne = key(
        32,
        Affects.QUERY,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Tokens of an item's text at most, without its title.",
    )
    finetune_batch_tokens: AtLeastOne = key(
        4096,
        Affects.NOTHING,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Tokens, padding included, that are encoded together.",
    )
    finetune_share_prefix: bool = key(
        True,
        Affects.NOTHING,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Run a user's part of the query through the LLM once for all items.",
    )
    lora_r: AtLeastOne = key(32, Affects.ADAPTER, Reader.TEXTS, when=FINETUNED_ROUTE, description="Rank of the LoRA layers.")
    lora_alpha: Positive = key(
        64.0,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Scale of the LoRA layers; they add lora_alpha / lora_r times their product.",
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = key(
        0.05, Affects.ADAPTER, Reader.TEXTS, when=FINETUNED_ROUTE, description="Dropout before the LoRA layers."
    )
    lora_targets: list[str] = key(
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Linear layers of the LLM that get LoRA layers.",
    )
    finetune_quantization: Literal["none", "4bit", "8bit"] = key(
        "4bit",
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Weights of the LLM while it is fine-tuned and encodes: 4bit is NF4 with double quantisation (QLoRA).",
    )
    finetune_negatives: Literal["teacher", "random"] = key(
        "teacher",
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Item that a query is fine-tuned towards: the teacher's hard negative, or a random one (ablation).",
    )
    finetune_steps: Annotated[int, Field(ge=0)] = key(
        100,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Steps of fine-tuning; 0 leaves the LLM as it is (ablation).",
    )
    finetune_batch_size: Annotated[int, Field(ge=2)] = key(
        16, Affects.ADAPTER, Reader.TEXTS, when=FINETUNED_ROUTE, description="Pairs per step and device."
    )
    finetune_accumulation: AtLeastOne = key(
        1, Affects.ADAPTER, Reader.TEXTS, when=FINETUNED_ROUTE, description="Batches whose gradients make one step."
    )
    finetune_learning_rate: Positive = key(
        3e-4, Affects.ADAPTER, Reader.TEXTS, when=FINETUNED_ROUTE, description="Learning rate of the LoRA layers."
    )
    finetune_projection_learning_rate: Positive = key(
        5e-3,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Learning rate of the projections of e_u and e_i.",
    )
    finetune_temperature: Positive = key(
        0.05, Affects.ADAPTER, Reader.TEXTS, when=FINETUNED_ROUTE, description="Temperature tau of the fine-tuning loss."
    )
    finetune_contrast_weight: NonNegative = key(
        1.0,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Weight of the in-batch negatives added to the paired loss.",
    )
    finetune_gradient_checkpointing: bool = key(
        False,
        Affects.NOTHING,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Recompute activations in fine-tuning: less memory, more time.",
    )
    finetune_save_steps: AtLeastOne = key(
        25,
        Affects.NOTHING,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Steps between checkpoints; a killed fine-tuning continues there.",
    )
    finetune_seed: Seed = key(
        0,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Seed of fine-tuning; independent of RecBole's seed.",
    )
    finetune_heldout_users: Annotated[int, Field(ge=0)] = key(
        180,
        Affects.ADAPTER,
        Reader.TEXTS,
        when=FINETUNED_ROUTE,
        description="Users kept out of fine-tuning to measure it, at most a tenth of all; with finetune_from any number.",
    )
