"""Opening what the stages have built, without building anything: the hard negatives z_ui and the items in the same space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.finetune.session import FinetuneSession
from recbole_hnlm.finetune.vectors import finetuned_identity
from recbole_hnlm.stages.encode import encode_job
from recbole_hnlm.stages.kinds import is_finetuned_kind, kinds_needed, store_folder
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.stages.context import StageContext

__all__ = ["open_pair_stores"]


def open_pair_stores(context: StageContext, *, encoder: TextEncoder | None = None) -> tuple[VectorStore, VectorStore]:
    """Open the stores of z_ui and of the items that they are compared with; no language model is started.

    Args:
        context: what the stages work on.
        encoder: a text encoder in place of the configured one; it is not asked to encode anything.

    Raises:
        ArtifactError: the settings use no hard negatives, or a store is not built for this training split, or damaged.
    """
    settings = context.settings
    if "pairs" not in kinds_needed(settings):
        raise ArtifactError(
            "these settings use no hard negatives of an LLM (negative_route none, or mix_weight and contrast_weight 0)"
        )
    kinds: tuple[StoreKind, ...] = ("pairs", "finetuned_items" if settings.negative_route == "finetuned" else "item_texts")
    for kind in kinds:  # before the teacher is asked for, which would train one
        folder = store_folder(context, kind)
        if not (folder / "manifest.json").exists():
            raise ArtifactError(
                f"{folder} is not built for this training split; run `recbole-hnlm encode --dataset={context.dataset_name}` "
                "with the same keys, or give --artifact_dir"
            )
    with FinetuneSession(context, encoder=encoder) as session:
        pairs, items = (
            VectorStore.open(
                store_folder(context, kind),
                finetuned_identity(session.finetuned, kind)
                if is_finetuned_kind(settings, kind)
                else encode_job(session, kind).identity,
            )
            for kind in kinds
        )
    return pairs, items
