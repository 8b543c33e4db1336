"""Titles of items, for people who read lists of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.atomic_headers import read_header
from recbole_hnlm.data.atomic_text import AtomicFormat, read_item_texts, resolve_columns
from recbole_hnlm.utils.errors import DataError

if TYPE_CHECKING:
    from recbole_hnlm.config import Config

__all__ = ["item_titles"]

_logger = logging.getLogger(__name__)


def item_titles(config: Config, dataset: Any) -> list[str] | None:
    """Read the titles of a dataset's items, of the column ``title_field`` or one with a usual name.

    Args:
        config: the configuration.
        dataset: RecBole's dataset.

    Returns:
        Titles by internal item id (``""`` for the padding id and for an item without one), or None where there is no such
        column. A file that cannot be read gives a warning and None, unless ``title_field`` asks for one of its columns.

    Raises:
        DataError: ``title_field`` is given and cannot be read.
    """
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    named = config.settings.title_field
    try:
        if named is None and not _has_titles(path, config):
            return None
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        texts, _ = read_item_texts(
            path,
            item_id_field=dataset.iid_field,
            named={"title": named},
            wanted=set(tokens[1:]),
            form=AtomicFormat.from_config(config),
            max_broken_share=config.settings.max_missing_share,
        )
    except DataError as error:
        if named is not None:
            raise
        _logger.warning("titles are left out: %s", error)
        return None
    return [texts[token].title if token in texts else "" for token in tokens]


def _has_titles(path: Path, config: Config) -> bool:
    if not path.is_file():
        return False
    unloaded = (config["unload_col"] or {}).get("item", ())
    columns = list(read_header(path, config["encoding"], config["field_separator"]))
    found = resolve_columns(columns, {"title": None}, path, () if unloaded == "*" else unloaded)
    return found["title"] is not None
