"""Embeddings of users and items with their raw ids, for an index outside (faiss, a vector database)."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import save_file

from recbole_hnlm import __version__
from recbole_hnlm.data.titles import item_titles
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.inner_products import scoring_embeddings
from recbole_hnlm.quick_start.loaded import LoadedModel, loaded_model
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.files import file_digest, read_manifest, replacing, write_manifest
from recbole_hnlm.utils.given_paths import output_folder, user_path
from recbole_hnlm.utils.row_files import ROW_FORMATS, check_row_file, row_writer
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["ExportedEmbeddings", "check_export", "export_embeddings"]

_KIND = "embeddings"
_MANIFEST = "manifest.json"
_TENSORS = "embeddings.safetensors"
_CHUNK_ROWS = 65_536


class ExportedEmbeddings(NamedTuple):
    """What was written.

    Attributes:
        folder: the folder.
        users: number of users.
        items: number of items.
        dim: length of a vector.
    """

    folder: Path
    users: int
    items: int
    dim: int


def check_export(folder: str | Path, ids: str = "csv") -> Path:
    """Check, before any work, that embeddings can be written into a folder; returns it.

    Raises:
        ConfigError: the format of the ids is unknown, or the folder cannot be written or holds something that is no export of
            ours.
        ArtifactError: the folder's manifest is damaged.
        MissingDependencyError: Parquet without pyarrow.
    """
    target = output_folder(folder, "the export")
    if ids not in ROW_FORMATS:
        raise ConfigError(f"ids is {shown(ids)}, expected one of {', '.join(ROW_FORMATS)}")
    check_row_file(target / f"users.{ids}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        remedy = "choose a new or an empty folder"
        manifest = read_manifest(target / _MANIFEST, remedy) if (target / _MANIFEST).is_file() else {}
        if manifest.get("kind") != _KIND:
            raise ConfigError(f"{target} holds something that is no earlier export, which would be replaced: {remedy}")
    return target


def export_embeddings(
    checkpoint_or_model: str | Path | LoadedModel | tuple[Any, ...],
    folder: str | Path,
    *,
    ids: str = "csv",
    config_dict: Mapping[str, Any] | None = None,
    argv: tuple[str, ...] = (),
    model: str | type[Any] | None = None,
) -> ExportedEmbeddings:
    """Write the vectors whose inner products are a model's scores, of graph models the propagated ones, and their raw ids.

    ``embeddings.safetensors`` holds ``users [U, d]`` and ``items [I, d]``, without the padding id; line i (from 0) of
    ``users.<ids>`` and ``items.<ids>`` says whose row i is, with the item's title where the dataset has any. ``manifest.json``
    says what they are of, with a digest of each file. The folder appears whole at the end; an earlier export is replaced.

    Args:
        checkpoint_or_model: path of a checkpoint, or what ``load_data_and_model`` returned.
        folder: a new or an empty one, or one with an earlier export.
        ids: format of the ids, ``csv``, ``jsonl`` or ``parquet``; in CSV, ids that a spreadsheet would run as formulas get an
            apostrophe.
        config_dict: keys that replace the checkpoint's, and those that a checkpoint does not hold, such as ``data_path``.
        argv: the same as command-line tokens; they win.
        model: class, or ``package.module:Class``, of a checkpoint's model that is neither built in nor installed.

    Raises:
        ConfigError: the model does not score by inner products, or the folder holds something else.
        ArtifactError: the checkpoint is missing, damaged or foreign, or does not fit the data; a file cannot be written.
    """
    target = check_export(folder, ids)
    loaded = loaded_model(checkpoint_or_model, config_dict, argv, model=model)
    users, items = (table[1:].float().cpu().contiguous() for table in scoring_embeddings(loaded.model))
    training = TrainingInteractions.from_dataset(loaded.train_data._dataset)
    titles = item_titles(loaded.config, loaded.dataset)
    file = user_path(checkpoint_or_model) if isinstance(checkpoint_or_model, (str, Path)) else None
    with _whole_folder(target) as partial:
        with replacing(partial / _TENSORS) as path:
            save_file({"users": users, "items": items}, path)
        _write_ids(partial / f"users.{ids}", "user_id", training.user_tokens, None)
        _write_ids(partial / f"items.{ids}", "item_id", training.item_tokens, titles)
        # safetensors writes files that their owner alone can read.
        shutil.copymode(partial / f"items.{ids}", partial / _TENSORS)
        content = {
            "kind": _KIND,
            "version": __version__,
            "model": loaded.config["model"],
            "dataset": loaded.config["dataset"],
            "split_fingerprint": training.split_fingerprint,
            "checkpoint_sha256": file_digest(file) if file is not None else None,
            "similarity": "inner product",
            "users": len(users),
            "items": len(items),
            "dim": users.shape[1],
            "files": {path.name: file_digest(path) for path in sorted(partial.iterdir())},
        }
        write_manifest(partial / _MANIFEST, content)
    return ExportedEmbeddings(target, len(users), len(items), users.shape[1])


def _write_ids(path: Path, column: str, tokens: NDArray[Any], titles: Sequence[str] | None) -> None:
    columns: dict[str, type] = {"row": int, column: str, **({"title": str} if titles is not None else {})}
    with row_writer(path, columns) as append:
        for start in range(1, len(tokens), _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, len(tokens))
            rows: dict[str, Sequence[Any]] = {"row": range(start - 1, stop - 1), column: tokens[start:stop].tolist()}
            append({**rows, "title": titles[start:stop]} if titles is not None else rows)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder next to ``folder`` that takes its place once the block ends without an error.

    Raises:
        ArtifactError: the place cannot be written; an earlier export is left as it was.
    """
    target = folder.resolve()
    partial, earlier = (target.with_name(f".{target.name}.{os.getpid()}.{kind}") for kind in ("tmp", "earlier"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.rename(earlier)
        partial.rename(target)
    except OSError as error:
        raise ArtifactError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if earlier.exists() and not target.exists():
            earlier.rename(target)
        shutil.rmtree(earlier, ignore_errors=True)
