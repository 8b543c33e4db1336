"""The project's own configuration keys: names, types, defaults, ranges and the rules that hold between them.

RecBole's keys stay RecBole's. The keys here are flat, so that YAML files, ``--key=value`` and hyper-parameter tuning reach
them alike. ``properties/overall.yaml`` states the same defaults with RecBole's ``# (type) meaning`` comments, and a test
keeps the two equal.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.registry import get_negative_sampler, is_import_path, negative_sampler_keys, negative_sampler_names

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HNLMSettings", "TextSettings", "setting_names", "settings_of", "validate_settings"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
AtLeastOne = Annotated[int, Field(ge=1)]


def _known_negative_sampler(name: str) -> str:
    names = negative_sampler_names()
    if name not in names and not is_import_path(name):
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"should be one of {', '.join(names)} (did you mean {nearest!r}?)")
    return name


class HNLMSettings(BaseModel):
    """Every key that recbole-hnlm adds to RecBole's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    # --- where things go -------------------------------------------------------------------------------------------
    artifact_dir: str = Field("artifacts", description="Folder of LLM replies, profiles, negatives and vectors.")
    results_dir: str = Field("results", description="Folder of the JSON file that every run writes.")
    log_dir: str = Field("log", description="Folder of the log files, one file a run.")
    resume: str | None = Field(None, description="Checkpoint (<run_id>.last.pth) to go on training from.")

    # --- data ------------------------------------------------------------------------------------------------------
    split_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Seed of the split alone; null splits by seed, as RecBole does."
    )

    # --- text columns ----------------------------------------------------------------------------------------------
    title_field: str | None = Field(None, description="Column of .item with an item's title; null guesses.")
    categories_field: str | None = Field(None, description="Column of .item with an item's categories; null guesses.")
    city_field: str | None = Field(None, description="Column of .item with an item's city; null guesses.")
    description_field: str | None = Field(None, description="Column of .item with an item's description; null guesses.")
    review_field: str | None = Field(None, description="Column of .inter with the user's review; null guesses.")
    description_max_chars: AtLeastOne = Field(400, description="Characters of a description that a prompt may quote.")
    review_max_chars: AtLeastOne = Field(200, description="Characters of a review that a prompt may quote.")

    # --- the language model ----------------------------------------------------------------------------------------
    llm_backend: Literal["transformers", "openai"] = Field(
        "transformers", description="Who runs the LLM: this process (transformers) or an OpenAI-compatible server (openai)."
    )
    llm_model: str = Field("smollm2", description="smollm2 (embedded), a folder, a hub id, or the name a server serves.")
    llm_revision: str | None = Field(None, description="Revision of a hub model; null takes the default branch.")
    llm_base_url: str | None = Field(
        None, description="Base URL of the server of llm_backend openai, such as http://localhost:8000/v1."
    )
    llm_api_key_env: str = Field("OPENAI_API_KEY", description="Name of the environment variable that holds the server's key.")
    llm_quantization: Literal["none", "4bit", "8bit"] = Field("none", description="Load the LLM's weights in 4 or 8 bits.")
    llm_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="Compute type of the LLM.")
    llm_trust_remote_code: bool = Field(False, description="Run code that comes with a hub model.")
    llm_batch_size: AtLeastOne = Field(128, description="Prompts that are generated together (transformers).")
    llm_concurrency: AtLeastOne = Field(16, description="Requests that are under way at once (openai).")
    llm_timeout: Positive = Field(120.0, description="Seconds to wait for one answer of a server.")
    llm_max_retries: Annotated[int, Field(ge=0)] = Field(4, description="Times a failed request to a server is sent again.")
    llm_reply_attempts: AtLeastOne = Field(
        2, description="Times a prompt is asked until its reply is valid; then it counts as missing."
    )
    llm_temperature: NonNegative = Field(0.0, description="Sampling temperature of profiles; 0 decodes greedily.")
    negative_temperature: NonNegative = Field(0.7, description="Sampling temperature of hard negatives; 0 decodes greedily.")
    llm_seed: int = Field(0, description="Seed of sampling and of the choice of pairs; independent of RecBole's seed.")
    max_missing_share: Share = Field(0.05, description="Share of missing replies above which a stage fails.")

    # --- prompts and replies ---------------------------------------------------------------------------------------
    profile_history_length: AtLeastOne = Field(6, description="Training items that a user's prompt shows at most.")
    profile_items: Literal["needed", "all"] = Field(
        "needed", description="Items that get a profile: needed (those that a chosen pair or the alignment reads) or all."
    )
    profile_max_words: Annotated[int, Field(ge=1, le=100)] = Field(
        15, description="Words of a profile's summarization at most."
    )
    reasoning_max_words: AtLeastOne = Field(5, description="Words of a reply's reasoning at most.")
    negative_max_words: Annotated[int, Field(ge=1, le=20)] = Field(8, description="Words of a hard negative's name at most.")

    # --- vectors ---------------------------------------------------------------------------------------------------
    text_encoder: str = Field("minilm", description="minilm (embedded), a folder, or a hub id for sentence-transformers.")
    encoder_batch_size: AtLeastOne = Field(128, description="Texts that are encoded together.")

    # --- negatives -------------------------------------------------------------------------------------------------
    negative_route: Literal["none", "text", "finetuned"] = Field(
        "text",
        description="Where z_ui comes from: none (no LLM at all), text (an LLM names an item, an encoder embeds it) or "
        "finetuned (the LLM is fine-tuned and emits the vector).",
    )
    semantic_negatives_per_user: AtLeastOne | None = Field(
        1, description="Training pairs of a user that get a semantic negative; null means every training pair."
    )
    semantic_candidates: Annotated[int, Field(ge=0)] = Field(
        0, description="Real items nearest to z_ui of which one, drawn anew, joins a positive's candidates; 0 adds none."
    )
    negative_sampler: Annotated[str, AfterValidator(_known_negative_sampler)] = Field(
        "dns", description="How the plain negative item is chosen; the names are in docs/method.md, section 3."
    )
    num_candidates: AtLeastOne = Field(
        8, description="Candidates per positive for every sampler that chooses; rows drawn per positive by in_batch."
    )
    popularity_alpha: NonNegative = Field(0.75, description="Power of an item's count in the popularity sampler.")
    dns_top: AtLeastOne = Field(2, description="N of dns_mn: the negative is one of the N hardest candidates.")
    ahns_alpha: NonNegative = Field(1.0, description="Shift of the positive's score in ahns.")
    ahns_beta: Positive = Field(10.0, description="Scale of the score that ahns looks for.")
    ahns_p: Annotated[float, Field(lt=-1.0)] = Field(
        -2.0, description="Power of ahns, below -1; the lower, the faster hardness falls as a positive scores better."
    )
    count_false_negatives: bool = Field(
        False,
        description="Count the chosen negatives that validation or test hold as positives; training never reads the counts.",
    )
    dens_gamma: NonNegative = Field(0.3, description="Weight of the disentangling loss of dens.")
    dens_warmup_epochs: AtLeastOne = Field(
        100, description="Epochs over which dens turns from candidates of irrelevant factors to those without relevant ones."
    )
    srns_alpha: NonNegative = Field(1.0, description="Weight of the spread over epochs in srns, once warmed up.")
    srns_warmup_epochs: AtLeastOne = Field(10, description="Epochs over which the weight of srns rises from 0.")
    srns_temperature: Positive = Field(1.0, description="Temperature of the scores by which srns renews its memory.")
    guard_weight: NonNegative = Field(
        0.25,
        description="Weight of the standardised text similarity that semantic_guard subtracts from the standardised score.",
    )
    guard_drop_share: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Share of the candidates, those nearest to the user's text, that semantic_guard drops."
    )

    # --- the teacher of the fine-tuned route ----------------------------------------------------------------------------
    teacher_model: str = Field(
        "HNLMLightGCN",
        description="Pairwise model that supervises fine-tuning; HNLM models train on dns negatives, without an LLM.",
    )
    teacher_epochs: AtLeastOne = Field(30, description="Epochs that the teacher trains, on the training split alone.")
    teacher_candidates: AtLeastOne = Field(
        64, description="Items that a user did not interact with among which a hard negative of fine-tuning is chosen."
    )
    teacher_guard_share: Share = Field(
        0.02, description="Share of those candidates, highest teacher score first, that is skipped as likely false negatives."
    )
    teacher_seed: int = Field(0, description="Seed of the candidates; independent of RecBole's seed.")

    # --- the fine-tuned route: what the LLM reads and how it is tuned -----------------------------------------------------
    finetune_text: Literal["profiles", "titles"] = Field(
        "profiles", description="Text of a query: the LLM's profiles, or titles of the user's items (no text is generated)."
    )
    finetune_from: str | None = Field(
        None,
        description="Folder of an adapter fine-tuned on another dataset, to be used here without fine-tuning; null fine-tunes.",
    )
    finetune_template: Literal["plain", "chat"] = Field(
        "plain", description="Form of a query: plain text or the chat template."
    )
    finetune_pooling: Literal["last", "mean"] = Field(
        "last", description="Hidden states that make the vector: the last or all."
    )
    finetune_layers: AtLeastOne | None = Field(
        10, description="Layers of the LLM, from the first, that are run and fine-tuned; null runs all."
    )
    finetune_soft_tokens: bool = Field(True, description="Put projections of e_u and e_i into the query; false is text alone.")
    finetune_max_length: AtLeastOne = Field(192, description="Tokens of a query at most; the budgets must fit into it.")
    finetune_user_tokens: AtLeastOne = Field(48, description="Tokens of the user's text at most.")
    finetune_title_tokens: AtLeastOne = Field(24, description="Tokens of an item's title at most.")
    finetune_item_tokens: AtLeastOne = Field(32, description="Tokens of an item's text beside its title at most.")
    finetune_batch_tokens: AtLeastOne = Field(4096, description="Tokens, padding included, that are encoded together.")
    finetune_share_prefix: bool = Field(True, description="Run a user's part of the query through the LLM once for all items.")
    lora_r: AtLeastOne = Field(32, description="Rank of the LoRA layers.")
    lora_alpha: Positive = Field(
        64.0, description="Scale of the LoRA layers; they add lora_alpha / lora_r times their product."
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.05, description="Dropout before the LoRA layers.")
    lora_targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj"], description="Linear layers of the LLM that get LoRA layers."
    )
    finetune_quantization: Literal["none", "4bit", "8bit"] = Field(
        "4bit",
        description="Weights of the LLM while it is fine-tuned and encodes: 4bit is NF4 with double quantisation (QLoRA).",
    )
    finetune_negatives: Literal["teacher", "random"] = Field(
        "teacher",
        description="Item that a query is fine-tuned towards: the teacher's hard negative, or a random one (ablation).",
    )
    finetune_steps: Annotated[int, Field(ge=0)] = Field(
        100, description="Steps of fine-tuning; 0 leaves the LLM as it is (ablation)."
    )
    finetune_batch_size: Annotated[int, Field(ge=2)] = Field(16, description="Pairs of a step and device.")
    finetune_accumulation: AtLeastOne = Field(1, description="Batches whose gradients make one step.")
    finetune_learning_rate: Positive = Field(3e-4, description="Learning rate of the LoRA layers.")
    finetune_projection_learning_rate: Positive = Field(5e-3, description="Learning rate of the projections of e_u and e_i.")
    finetune_temperature: Positive = Field(0.05, description="Temperature tau of the fine-tuning loss.")
    finetune_contrast_weight: NonNegative = Field(1.0, description="Weight of the in-batch negatives beside the paired loss.")
    finetune_gradient_checkpointing: bool = Field(
        False, description="Recompute activations in fine-tuning: less memory, more time."
    )
    finetune_save_steps: AtLeastOne = Field(25, description="Steps between checkpoints that a killed fine-tuning goes on from.")
    finetune_seed: int = Field(0, description="Seed of fine-tuning; independent of RecBole's seed.")
    finetune_heldout_users: Annotated[int, Field(ge=0)] = Field(
        180, description="Users kept out of fine-tuning to measure it, at most a tenth of all; with finetune_from any number."
    )

    # --- alignment and loss ----------------------------------------------------------------------------------------
    mix_weight: Share = Field(0.01, description="Share a of the semantic vector in the mixed negative a*h + (1-a)*e_j.")
    contrast_weight: NonNegative = Field(0.001, description="Weight of the contrast term that pushes e_u from h_ui.")
    contrast_temperature: Positive = Field(0.2, description="Temperature of the contrast term.")
    alignment_weight: NonNegative = Field(0.003, description="Weight of the two-way alignment of CF and text embeddings.")
    alignment_temperature: Positive = Field(0.2, description="Temperature of the alignment term.")
    alignment_source: Literal["text", "profile", "finetuned"] = Field(
        "text",
        description="Text side of the alignment: items' own text, the LLM's profiles, or the fine-tuned LLM's representation "
        "of items (users: mean of their items, but for profiles).",
    )
    alignment_max_batch: AtLeastOne = Field(
        1024, description="Unique users and items of a batch that enter the alignment at most."
    )
    rank_loss: Literal["bpr", "hinge"] = Field("bpr", description="Ranking loss.")
    margin: NonNegative = Field(0.3, description="Margin of the hinge loss.")
    projector_hidden_size: AtLeastOne = Field(128, description="Hidden width of the projector f from text to CF space.")
    projector_learning_rate: Positive | None = Field(
        None, description="Learning rate of the projector; null uses learning_rate."
    )

    # --- evaluation ------------------------------------------------------------------------------------------------
    eval_users_per_batch: AtLeastOne = Field(
        256, description="Users scored together in full ranking when eval_batch_size is not given."
    )
    text_score_weight: NonNegative = Field(
        0.0,
        description="Weight of the standardised cosine of texts beside the standardised score when items are ranked; 0 ranks "
        "by embeddings alone.",
    )

    _sampler_keys: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def sampler_keys(self) -> dict[str, Any]:
        """Values of the keys that a negative sampler from outside brings along, by name."""
        return self._sampler_keys

    @model_validator(mode="after")
    def _rules_between_keys(self) -> HNLMSettings:
        problems = [*self._server_problems(), *self._semantic_problems(), *self._sampler_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _server_problems(self) -> list[str]:
        problems = []
        if self.llm_backend == "openai" and self.llm_base_url is None:
            problems.append("llm_backend openai needs llm_base_url, such as --llm_base_url=http://localhost:8000/v1")
        if self.llm_backend == "openai" and self.llm_model == "smollm2":
            problems.append("llm_backend openai needs llm_model, the name under which the server serves its model")
        if self.llm_backend == "openai" and self.llm_quantization != "none":
            problems.append("llm_quantization is for llm_backend transformers; a server chooses its own")
        return problems

    def _semantic_problems(self) -> list[str]:
        problems = []
        if self.semantic_candidates and self.negative_route != "finetuned":
            problems.append(
                "semantic_candidates needs negative_route finetuned, whose LLM represents items and pairs in one space"
            )
        if self.semantic_candidates and self.negative_sampler not in {"dns", "dns_mn"}:
            problems.append(f"semantic_candidates needs negative_sampler dns or dns_mn, got {self.negative_sampler}")
        if self.alignment_source == "finetuned" and self.negative_route != "finetuned" and self.reads_text_vectors:
            problems.append("alignment_source finetuned needs negative_route finetuned")
        return problems

    def _sampler_problems(self) -> list[str]:
        problems = []
        least = get_negative_sampler(self.negative_sampler).least_candidates
        if self.num_candidates < least:
            problems.append(
                f"negative_sampler {self.negative_sampler} needs num_candidates >= {least}, got {self.num_candidates}"
            )
        if self.negative_sampler == "dns_mn" and self.dns_top > self.num_candidates:
            problems.append(f"dns_top is {self.dns_top}, expected at most num_candidates, {self.num_candidates}")
        if self.negative_route == "none" and self.reads_text_vectors and self.alignment_source == "profile":
            readers = {
                f"negative_sampler {self.negative_sampler}": get_negative_sampler(self.negative_sampler).reads_text,
                "text_score_weight above 0": self.text_score_weight > 0,
            }
            reader = next((name for name, reads in readers.items() if reads), "this model")
            problems.append(
                f"{reader} with alignment_source profile reads what an LLM wrote, which "
                "negative_route none rules out; use --alignment_source=text or --negative_route=text"
            )
        return problems

    @property
    def uses_semantics(self) -> bool:
        """Whether training reads any vectors: of what the LLM made, or of items' text."""
        return self.uses_pair_vectors or self.uses_semantic_candidates or self.reads_text_vectors

    @property
    def aligns(self) -> bool:
        """Whether the loss aligns embeddings with text vectors."""
        return self.negative_route != "none" and self.alignment_weight > 0

    @property
    def reads_text_vectors(self) -> bool:
        """Whether the loss, the negative sampler or the ranking reads text vectors of users and items."""
        return self.aligns or get_negative_sampler(self.negative_sampler).reads_text or self.text_score_weight > 0

    @property
    def uses_semantic_candidates(self) -> bool:
        """Whether real items near z_ui join the candidates."""
        return self.negative_route == "finetuned" and self.semantic_candidates > 0

    @property
    def uses_pair_vectors(self) -> bool:
        """Whether the loss reads z_ui."""
        return self.negative_route != "none" and max(self.mix_weight, self.contrast_weight) > 0


class TextSettings(HNLMSettings):
    """The same keys as read by a model that learns from text vectors of users and items and from nothing else of the LLM's.

    Such a model names this class as its ``settings_class``; the stages then build profiles (``alignment_source: profile``) or
    only encode items' text (``text``), and never hard negatives, whatever the weights of the semantic part are.
    """

    @property
    def aligns(self) -> bool:
        """Never: how text enters the loss is the model's own affair."""
        return False

    @property
    def reads_text_vectors(self) -> bool:
        """Always."""
        return True

    @property
    def uses_semantic_candidates(self) -> bool:
        """Never."""
        return False

    @property
    def uses_pair_vectors(self) -> bool:
        """Never."""
        return False


def setting_names() -> tuple[str, ...]:
    """Names of all keys of :class:`HNLMSettings`, in their documented order."""
    return tuple(HNLMSettings.model_fields)


def validate_settings(values: Mapping[str, Any], settings_class: type[HNLMSettings] = HNLMSettings) -> HNLMSettings:
    """Build the settings from a mapping, reporting every problem at once.

    Args:
        values: our keys only; a key that is left out takes its default.
        settings_class: how a model reads the keys.

    Raises:
        ConfigError: one line that lists each wrong key with what was found and what was expected.
    """
    try:
        return settings_class(**dict(values))
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = ".".join(str(part) for part in detail["loc"])
            message = detail["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {message}, got {detail['input']!r}" if key else message)
        raise ConfigError("invalid settings: " + "; ".join(problems)) from error


def settings_of(config: Any) -> HNLMSettings:
    """Return the validated settings inside a RecBole-style configuration (anything with ``in`` and ``[]``).

    Where the configuration carries a ``model_class`` that declares a ``settings_class``, they are of that class.

    Raises:
        ConfigError: as :func:`validate_settings`.
    """
    settings_class = getattr(getattr(config, "model_class", None), "settings_class", HNLMSettings)
    settings = validate_settings({name: config[name] for name in setting_names() if name in config}, settings_class)
    settings.sampler_keys.update({key: config[key] for key in negative_sampler_keys(settings.negative_sampler)})
    return settings
