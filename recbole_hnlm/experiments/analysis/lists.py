"""The lists that a run recommended on its test split: from a cell's arrays, or from its checkpoint evaluated once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.evaluator.per_user import is_per_user, value_table
from recbole_hnlm.experiments.store import LISTS
from recbole_hnlm.quick_start.runner import collector_of_test
from recbole_hnlm.utils.errors import ArtifactError, DataError
from recbole_hnlm.utils.files import BROKEN_ARRAY
from recbole_hnlm.utils.pairs import pair_matrix, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recbole_hnlm.config import Config
    from recbole_hnlm.data.loading import LoadedData
    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.experiments.analysis.sources import Source

__all__ = ["Lists", "lists_of_cell", "lists_of_model"]


@dataclass(frozen=True)
class Lists:
    """Recommended items of the users of the test split.

    Symbols: U users, K the longest cut-off.

    Attributes:
        users: internal ids, int64 ``[U]``.
        items: internal ids, best first, int64 ``[U, K]``.
        hits: whether an item is among the user's test items, and in the last column the number of those, int64 ``[U, K + 1]``.
        relevant: the test items of each user as a sparse matrix ``[U, I]`` of ones.
        config: the run's configuration, which names metrics and cut-offs.
        training: the training split.
        data: the dataset and its loaders.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    hits: NDArray[np.int64]
    relevant: Any
    config: Config
    training: TrainingInteractions
    data: LoadedData

    @property
    def metrics(self) -> list[str]:
        """Names of the run's ranking metrics that have a value for each user, in lower case."""
        return [name for name in dict.fromkeys(str(name).lower() for name in self.config["metrics"]) if is_per_user(name)]

    def values(self) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Yield each metric at each cut-off, such as ``ndcg@10``, with its value for each user, float64 ``[U]``."""
        for name in self.metrics:
            table = value_table(self.config, self.hits, name)
            for k in self.config["topk"]:
                yield f"{name}@{k}", table[:, k - 1]


def lists_of_cell(source: Source, config: Config, data: LoadedData, training: TrainingInteractions) -> Lists:
    """Read the lists that a cell of a comparison kept.

    Raises:
        ArtifactError: the arrays are missing, damaged, or of an older version, which kept no lists.
        DataError: the data are not those of the run.
    """
    table = source.path.with_suffix(".npz")
    if not table.is_file():
        raise ArtifactError(f"{table} is missing, which holds the lists of the cell; run compare again")
    try:
        with np.load(table, allow_pickle=False) as arrays:
            if LISTS not in arrays.files:
                raise ArtifactError(f"{table} holds no lists: it is of an older version; delete it and run compare again")
            tokens, items = arrays["users"], arrays[LISTS].astype(np.int64)
    except BROKEN_ARRAY as error:
        raise ArtifactError(f"{table} is corrupt ({error}); delete it and run compare again") from error
    longest = max(config["topk"])
    if longest > items.shape[1]:
        raise ArtifactError(f"topk {longest} asks for more than the {items.shape[1]} items of a list that {table} holds")
    place = {str(token): user for user, token in enumerate(training.user_tokens)}
    users = np.array([place[str(token)] for token in tokens], dtype=np.int64)
    return _checked(_with_hits(users, items[:, :longest], config, training, data), source)


def lists_of_model(config: Config, model: Any, data: LoadedData, training: TrainingInteractions, source: Source) -> Lists:
    """Let a trained model rank the items of the test split's users as the run did.

    Raises:
        DataError: what comes out is not what the run reported.
    """
    collector = collector_of_test(config, model, data)
    if collector.latest_items is None:
        raise DataError(f"{source.path}: the run predicts ratings and has no lists, so there is nothing to analyse")
    users = np.asarray(data.test.uid_list, dtype=np.int64)
    items = collector.latest_items.numpy().astype(np.int64)
    return _checked(_with_hits(users, items, config, training, data), source)


def _with_hits(
    users: NDArray[np.int64], items: NDArray[np.int64], config: Config, training: TrainingInteractions, data: LoadedData
) -> Lists:
    tested = [side.numpy() for side in pairs_of(data.test._dataset)]
    relevant = pair_matrix(tested[0], tested[1], (training.n_users, training.n_items))[users]
    rows = np.repeat(np.arange(len(users)), items.shape[1])
    hits = np.asarray(relevant[rows, items.ravel()]).reshape(items.shape)
    counts = np.diff(relevant.indptr)[:, None]
    return Lists(users, items, np.hstack([hits, counts]).astype(np.int64), relevant, config, training, data)


def _checked(lists: Lists, source: Source) -> Lists:
    """Refuse lists that do not give the figures of the record."""
    recorded = source.record["test_result"] or {}
    places = int(lists.config["metric_decimal_place"])
    for name, values in lists.values():
        found = float(values.mean())
        if name in recorded and abs(found - recorded[name]) > 0.6 * 10.0**-places:
            raise DataError(
                f"{source.path} reports {name} {recorded[name]}, but its lists give {found:.{places}f}: they are not of "
                "one run or not of the same data; run again"
            )
    return lists
