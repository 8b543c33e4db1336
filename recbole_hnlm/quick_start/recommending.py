"""Recommending items to users with a trained model, in raw ids, a batch of users at a time.

Symbols: n users of a batch, I items including the padding id 0.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from recbole_hnlm.data.titles import item_titles
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.all_items import predict_all_items
from recbole_hnlm.quick_start.loaded import LoadedModel, loaded_model
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, DataError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Recommender", "recommend"]

_NAMED_UNKNOWN = 3


class Recommender:
    """Ranks the items that a user did not interact with in training.

    Attributes:
        columns: names and types of a recommendation's parts: ``user_id``, ``rank`` (from 1), ``item_id``, ``score`` and, where
            the dataset has any, ``title``.
        users_per_batch: users that are scored together, as in an evaluation (``eval_users_per_batch``).
    """

    def __init__(self, loaded: LoadedModel) -> None:
        """Take a loaded model, which is put into evaluation mode and stays in it.

        Args:
            loaded: what ``load_data_and_model`` returned.

        Raises:
            DataError: ``title_field`` names a column that cannot be read.
        """
        self._loaded = loaded
        self._dataset = loaded.train_data._dataset
        self._training = TrainingInteractions.from_dataset(self._dataset)
        self._titles = item_titles(loaded.config, loaded.dataset)
        self.users_per_batch = max(1, int(loaded.config["eval_batch_size"]) // self._training.n_items)
        loaded.model.eval()
        self.columns: dict[str, type] = {"user_id": str, "rank": int, "item_id": str, "score": float}
        if self._titles is not None:
            self.columns["title"] = str

    def ids_of(self, users: Iterable[str | int] | str | int | None) -> NDArray[np.int64]:
        """Turn raw user ids into internal ones, eight bytes for each.

        Args:
            users: raw ids, in any iterable, or one of them; None stands for all users.

        Returns:
            Internal ids in the order given, int64.

        Raises:
            DataError: users that the dataset does not have; the message counts them and names the first few.
        """
        if users is None:
            return np.arange(1, self._training.n_users, dtype=np.int64)
        if isinstance(users, (str, int, np.integer)):
            users = [users]
        known = self._dataset.field2token_id[self._dataset.uid_field]
        ids, unknown = array("q"), 0
        named: list[str] = []
        for user in users:
            ids.append(known.get(str(user), 0))  # the padding's id is 0 too, which is no user
            if not ids[-1]:
                unknown += 1
                named += [shown(str(user))] if len(named) < _NAMED_UNKNOWN else []
        if unknown:
            raise DataError(
                f"{unknown:,} of {len(ids):,} users {'is' if unknown == 1 else 'are'} not in dataset "
                f"{self._loaded.config['dataset']} as it was trained on: {', '.join(named)}"
                f"{' ...' if unknown > len(named) else ''}; give ids as in its .inter file, such as "
                f"{shown(str(self._training.user_tokens[1]))}, of users that its filters keep"
            )
        return np.frombuffer(ids, dtype=np.int64) if len(ids) else np.empty(0, dtype=np.int64)

    def batches(self, users: NDArray[np.int64], k: int) -> Iterator[dict[str, list[Any]]]:
        """Recommend to users, a batch at a time; nothing is scored before it is asked for.

        Args:
            users: internal ids, of :meth:`ids_of`.
            k: items for each user; one who has interacted with nearly all items gets fewer.

        Yields:
            Recommendations of the next users as columns of equal lengths, by the names of :attr:`columns`; best item first.

        Raises:
            ConfigError: k is not a number from 1 to the number of items.
            ArtifactError: the model's scores are not numbers.
        """
        most = self._training.n_items - 1
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most:
            raise ConfigError(f"topk is {shown(k)}, expected a whole number from 1 to {most:,}, the number of items")
        size = self.users_per_batch
        return (self._columns_of(users[start : start + size], k) for start in range(0, len(users), size))

    @torch.no_grad()
    def _columns_of(self, users: NDArray[np.int64], k: int) -> dict[str, list[Any]]:
        scores = self._scores(users)
        if torch.isnan(scores).any():
            raise ArtifactError(f"{self._loaded.config['model']} gives scores that are not numbers: train it again")
        scores[:, 0] = -torch.inf
        seen = [self._training.history_of(int(user)) for user in users]
        places = np.repeat(np.arange(len(users)), [len(items) for items in seen])
        scores[torch.from_numpy(places), torch.from_numpy(np.concatenate(seen))] = -torch.inf
        values, items = (part.cpu().numpy() for part in torch.topk(scores, k, dim=1))  # [n, k]
        row, column = np.nonzero(values > -np.inf)
        chosen = items[row, column]
        columns: dict[str, list[Any]] = {
            "user_id": self._training.user_tokens[users[row]].tolist(),
            "rank": (column + 1).tolist(),
            "item_id": self._training.item_tokens[chosen].tolist(),
            # The shortest decimals that name the same float32.
            "score": [float(str(value)) for value in values[row, column]],
        }
        if self._titles is not None:
            columns["title"] = [self._titles[item] for item in chosen]
        return columns

    def _scores(self, users: NDArray[np.int64]) -> torch.Tensor:
        """Score all items for users as RecBole's evaluation does; float ``[n, I]``."""
        model, dataset, device = self._loaded.model, self._dataset, self._loaded.config["device"]
        asked = dataset.join(Interaction({dataset.uid_field: torch.tensor(users)})).to(device)
        try:
            scores = model.full_sort_predict(asked)
        except NotImplementedError:
            items = dataset.get_item_feature().to(device)
            scores = predict_all_items(model.predict, asked, items, int(self._loaded.config["eval_batch_size"]))
        return scores.view(len(users), -1).float()


def recommend(
    checkpoint_or_model: str | Path | LoadedModel | tuple[Any, ...],
    users: Iterable[str | int] | str | int | None,
    k: int = 10,
    *,
    config_dict: Mapping[str, Any] | None = None,
    model: str | type[Any] | None = None,
) -> pd.DataFrame:
    """Recommend items to users; items of a user's training interactions are left out.

    Args:
        checkpoint_or_model: path of a checkpoint, or what ``load_data_and_model`` returned.
        users: raw ids as in the ``.inter`` file, or one of them; None stands for all users.
        k: items for each user; one who has interacted with nearly all items gets fewer.
        config_dict: keys that replace the checkpoint's, and those that a checkpoint does not hold, such as ``data_path``.
        model: class, or ``package.module:Class``, of a checkpoint's model that is neither built in nor installed.

    Returns:
        One row for each recommendation, users in the order given and the best item first: ``user_id``, ``rank`` (from 1),
        ``item_id``, ``score`` and, where the dataset has any, ``title``.

    Raises:
        DataError: a user that the dataset does not have.
        ConfigError: k is not a number from 1 to the number of items, or a model alone was given.
        ArtifactError: the checkpoint is missing, damaged or foreign, or does not fit the data.
    """
    recommender = Recommender(loaded_model(checkpoint_or_model, config_dict, model=model))
    table: dict[str, list[Any]] = {name: [] for name in recommender.columns}
    for batch in recommender.batches(recommender.ids_of(users), k):
        for name, values in batch.items():
            table[name] += values
    return pd.DataFrame(table)
