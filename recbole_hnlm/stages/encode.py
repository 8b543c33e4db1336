"""From texts to vectors in the store, one kind at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from recbole_hnlm.data.atomic_text import cut_text
from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.stages.kinds import store_folder
from recbole_hnlm.stages.negatives import NEGATIVES, declined_rows, read_profiles
from recbole_hnlm.stages.profile import ITEM_PROFILES, USER_PROFILES
from recbole_hnlm.stages.prompts import prompt_hash
from recbole_hnlm.stages.replies import reply_artifact
from recbole_hnlm.stages.report import StageCounts
from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.atomic_text import ItemText
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.session import StageSession

__all__ = [
    "EncodeJob",
    "ItemTextVectors",
    "encode_job",
    "ensure_text_store",
    "item_own_text",
    "item_text_vectors",
    "vectors_by_id",
]

_OWN_TEXT_FORM = "title. categories"
_OWN_TEXT_MAX_CHARS = 1000


def item_own_text(text: ItemText, settings: HNLMSettings) -> str:
    """Text that stands for an item: "title. categories", or its description when it has neither."""
    own = ". ".join(part for part in (text.title, text.categories) if part)
    return cut_text(own, _OWN_TEXT_MAX_CHARS) if own else cut_text(text.description, settings.description_max_chars)


@dataclass(frozen=True)
class EncodeJob:
    """Texts of one kind, in the order in which they are encoded.

    Attributes:
        identity: what the vectors will be.
        tables: raw tokens of each key column.
        keys: int32 ``[N, K]``, indices into the tables.
        texts: N texts, shortest first, so that a batch needs little padding.
    """

    identity: StoreIdentity
    tables: list[list[str]]
    keys: NDArray[np.int32]
    texts: list[str]


def encode_job(session: StageSession, kind: StoreKind) -> EncodeJob:
    """Collect the texts of one kind.

    Raises:
        HNLMError: the text, or the artefact that the texts come from, is absent or corrupt.
    """
    context, encoder = session.context, session.encoder
    texts = dict(sorted(_texts(context, kind).items(), key=lambda entry: (len(entry[1]), entry[1], entry[0])))
    training = context.training
    columns = {"pairs": (training.user_tokens, training.item_tokens), "user_profiles": (training.user_tokens,)}
    tables = [[str(token) for token in column[1:]] for column in columns.get(kind, (training.item_tokens,))]
    positions = [{token: position for position, token in enumerate(table)} for table in tables]
    keys = np.array([[places[token] for places, token in zip(positions, key, strict=True)] for key in texts], dtype=np.int32)
    parts = [part for key, text in texts.items() for part in (*key, text)]
    identity = StoreIdentity(
        kind=kind,
        model=encoder.name,
        revision=encoder.revision,
        prompt_hash=_OWN_TEXT_FORM if kind == "item_texts" else prompt_hash(context.settings),
        dataset_fingerprint=training.dataset_fingerprint,
        split_fingerprint=training.split_fingerprint,
        inputs=text_digest(parts)[:32],
    )
    return EncodeJob(identity, tables, keys.reshape(len(texts), len(tables)), list(texts.values()))


def _texts(context: StageContext, kind: StoreKind) -> dict[tuple[str, ...], str]:
    """Texts of one kind by raw tokens."""
    if kind == "item_texts":
        return {(token,): item_own_text(text, context.settings) for token, text in context.item_texts.items()}
    if kind == "pairs":
        rows = reply_artifact(context, NEGATIVES).read()
        kept = zip(rows, declined_rows(context, rows), strict=True)
        return {(row["user_id"], row["item_id"]): row["hard_negative_item"] for row, declined in kept if not declined}
    profiles = read_profiles(context, ITEM_PROFILES if kind == "item_profiles" else USER_PROFILES)
    return {(token,): text for token, text in profiles.items()}


def vectors_by_id(
    store: VectorStore | None, tokens: NDArray[np.str_]
) -> tuple[NDArray[np.float16] | None, NDArray[np.bool_] | None]:
    """Vectors by internal id, float16 as stored, ``[len(tokens), T]`` zeros where there is none, and which ids have one."""
    if store is None:
        return None, None
    rows = store.rows_of_tokens(tokens)
    rows[0] = -1  # the padding id, even if an item's raw token should be "[PAD]"
    mask = rows >= 0
    vectors = np.zeros((len(tokens), store.vectors.shape[1]), dtype=store.vectors.dtype)
    vectors[mask] = store.vectors[rows[mask]]
    return vectors, mask


@dataclass(frozen=True)
class ItemTextVectors:
    """Vectors of the items' own texts.

    Attributes:
        vectors: ``[I, T]``.
        mask: which items have one, bool ``[I]``.
        encoder: name and revision of the text encoder.
    """

    vectors: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_]
    encoder: str


def item_text_vectors(session: StageSession) -> ItemTextVectors:
    """Make or read the vectors of the items' own texts.

    Raises:
        HNLMError: see :func:`ensure_text_store`.
    """
    job = encode_job(session, "item_texts")
    _ensure_store(session, job)
    store = VectorStore.open(store_folder(session.context, "item_texts"), job.identity)
    vectors, mask = vectors_by_id(store, session.context.training.item_tokens)
    if vectors is None or mask is None:
        raise ValueError("a store gives vectors")
    return ItemTextVectors(vectors, mask, f"{job.identity.model} {job.identity.revision}")


def ensure_text_store(session: StageSession, kind: StoreKind) -> tuple[VectorStore, StageCounts]:
    """Make or reuse the store of one kind of texts.

    Returns:
        The opened store, and the counts of its vectors.

    Raises:
        HNLMError: a text source is absent, a store is corrupt, the encoder cannot be loaded or the folder written.
    """
    job = encode_job(session, kind)
    made = _ensure_store(session, job)
    counts = StageCounts(len(job.texts), reused=len(job.texts) - made, generated=made)
    return VectorStore.open(store_folder(session.context, kind), job.identity), counts


def _ensure_store(session: StageSession, job: EncodeJob) -> int:
    """Build the store unless it is there; returns the number of vectors made now."""
    folder = store_folder(session.context, job.identity.kind)
    if VectorStore.has(folder, job.identity):
        return 0
    with session.writing():
        return 0 if VectorStore.has(folder, job.identity) else _encode(session, job, folder)


def _encode(session: StageSession, job: EncodeJob, folder: Path) -> int:
    batch_size = session.context.settings.encoder_batch_size
    with VectorStoreWriter(folder, job.identity, job.tables, session.encoder.dim) as writer:
        resumed = writer.count
        description = f"vectors of {job.identity.kind.replace('_', ' ')}"
        shown: dict[str, Any] = {"desc": description, "unit": "text", "disable": not session.context.show_progress}
        with tqdm(total=len(job.texts), initial=resumed, dynamic_ncols=True, **shown) as progress:
            for start in range(resumed, len(job.texts), batch_size):
                texts = job.texts[start : start + batch_size]
                unique, places = np.unique(np.array(texts, dtype=object), return_inverse=True)
                vectors = session.encoder.encode([str(text) for text in unique])
                writer.append(job.keys[start : start + batch_size], vectors[places])
                progress.update(len(texts))
        writer.finish()
    return len(job.texts) - resumed
