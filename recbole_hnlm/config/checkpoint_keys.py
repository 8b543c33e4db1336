"""What a checkpoint may say about the run that reads it: an allow-list.

A checkpoint comes from somewhere. Its keys decide how data are filtered and split and what model is built; none of them may
name a folder, a server, a key, code or a device, so that reading a stranger's file sends, runs and overwrites nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from recbole.utils import dataset_arguments, evaluation_arguments, training_arguments

from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.settings import keys_affecting, place_keys
from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.values import refuse_unbounded, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["check_names", "keys_to_repeat", "llm_places", "parts_of_saved", "taken_from_checkpoint"]

# Those of them without which the LLM's vectors of a run cannot be found again.
_LLM_PLACES = ("artifact_dir", "finetune_from", "text_encoder", "llm_backend", "llm_model", "llm_revision", "llm_base_url")
# RecBole's that a model reads although they name files.
_FILE_KEYS = frozenset({"pre_model_path", "pretrain_path", "mf_pretrain_path", "mlp_pretrain_path", "use_pretrain"})
# RecBole's general keys that decide how data are split and models are built.
_GENERAL = frozenset({
    *("seed", "reproducibility", "shuffle", "encoding", "numerical_features", "discretization", "require_pow", "transform"),
    *("eta", "norm", "tail_ratio", "token_num_threshold", "kg_reverse_r", "entity_kg_num_interval", "relation_kg_num_interval"),
})  # fmt: skip
_NAME = re.compile(r"[A-Za-z_]\w*")


def taken_from_checkpoint(saved: Mapping[str, Any], model_keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Keep of a stored configuration what the model and the data need.

    Args:
        saved: what :meth:`Config.to_saved` returned, possibly changed by whoever owned the file.
        model_keys: keys of the model's own YAML files.

    Returns:
        ``given`` and ``defaults`` with allowed keys alone.

    Raises:
        ArtifactError: the stored configuration is no pair of dictionaries.
    """
    ours = frozenset(keys_affecting(~Affects.NOTHING)) - place_keys()
    listed = {*dataset_arguments, *evaluation_arguments, *training_arguments, *_GENERAL}
    allowed = (ours | listed | frozenset(model_keys)) - place_keys() - _FILE_KEYS
    parts = {}
    for name in ("given", "defaults"):
        part = saved.get(name) if hasattr(saved, "get") else None
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise ArtifactError(f"the checkpoint's configuration lacks the dictionary {name!r}: it is damaged, train again")
        refuse_unbounded(part, "the checkpoint's configuration")
        parts[name] = {key: value for key, value in part.items() if key in allowed}
    return parts


def check_names(model: Any, dataset: Any) -> None:
    """Refuse names that would import a module or leave the folder of datasets.

    Raises:
        ArtifactError: a model that is not a plain name, or a dataset with a path in it.
    """
    if not isinstance(model, str) or not _NAME.fullmatch(model):
        raise ArtifactError(f"the checkpoint names the model {shown(model)}, expected the plain name of a class")
    is_plain = isinstance(dataset, str) and dataset.isprintable() and not set("/\\:~") & set(dataset)
    if not is_plain or dataset in {"", ".", ".."}:
        raise ArtifactError(f"the checkpoint names the dataset {shown(dataset)}, expected a name without a path")


def llm_places(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given places of the LLM's vectors and other models, as they may be stored: without what may be a key."""
    return {key: _storable(given[key]) for key in (*_LLM_PLACES, "fuse_with") if given.get(key)}


def parts_of_saved(saved: Mapping[str, Any]) -> str:
    """Return the value of ``fuse_with`` that a run was given, as it is given; empty where it had none."""
    places = saved.get("places")
    parts = places.get("fuse_with") if isinstance(places, dict) else None
    return redact(shown(parts).replace("'", "").replace(" ", "")) if isinstance(parts, list) and parts else ""


def _storable(place: Any) -> Any:
    return redact(place) if isinstance(place, str) else place


def keys_to_repeat(saved: Mapping[str, Any], final: Mapping[str, Any]) -> list[str]:
    """Return, as ``--key=value``, the places of the LLM's vectors that a run was given and this one is not."""
    places = saved.get("places")
    if not isinstance(places, dict):
        return []
    different = [key for key in _LLM_PLACES if key in places and places[key] != _storable(final.get(key))]
    return [f"--{key}={redact(shown(places[key]))}" for key in different]
