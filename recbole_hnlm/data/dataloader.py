"""Training batches: positives, candidates for their negatives, and the row of each positive's semantic vector.

RecBole's loader divides ``train_batch_size`` by the number of negatives and indexes columns through Python lists. Here a
batch holds ``train_batch_size`` positives whatever the number of candidates, and columns are indexed by tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from recbole.data.dataloader.general_dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from torch.utils.data import get_worker_info

from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.data.sampler import CandidateSampler
from recbole_hnlm.data.semantics import vectors_of
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.registry import get_negative_sampler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole.data.dataset import Dataset

__all__ = ["SEMANTIC_ROW", "HNLMTrainDataLoader", "build_train_loader"]

SEMANTIC_ROW = "semantic_row"
"""Name of the batch column with each positive's row in the store of pair vectors, -1 where it has none."""


class UserIdSampler(Protocol):
    """What a loader needs of a sampler; RecBole's ``Sampler`` qualifies too."""

    def sample_by_user_ids(self, user_ids: Any, item_ids: Any, num: int) -> torch.Tensor:
        """Return ``num`` blocks of B item ids, int64 ``[num * B]``."""


class HNLMTrainDataLoader(TrainDataLoader):
    """Yield batches with ``user_id [B]``, ``item_id [B]``, ``neg_item_id`` and, where vectors exist, ``semantic_row [B]``.

    ``neg_item_id`` is ``[B]`` when the negative sampler takes one plain item and ``[B, K]`` when it chooses among candidates.
    B is ``train_batch_size`` (divided by the number of processes under DDP). The order of rows and its reshuffling in every
    epoch are RecBole's: same generator, same seed. With ``worker > 0`` each worker draws from its own stream, which
    follows from the loader's generator.

    Departure from RecBole: features of users and items are not joined into the batch; models here read ids only.
    """

    def __init__(self, config: Any, dataset: Dataset, sampler: UserIdSampler | None = None, shuffle: bool = False) -> None:
        """Build the loader.

        Args:
            config: RecBole's configuration with our keys in it.
            dataset: RecBole's training dataset. It may carry vectors (:func:`~recbole_hnlm.data.semantics.attach_vectors`).
            sampler: where negatives come from; None builds a :class:`CandidateSampler` as ``negative_sampler`` asks.
            shuffle: whether to shuffle anew for every epoch.

        Raises:
            ArtifactError: if the semantic vectors belong to another number of interactions.
            ConfigError: if RecBole's own negative sampling keys ask for what only our keys can do.
        """
        settings = settings_of(config)
        self._negatives = get_negative_sampler(settings.sampler_in_use)
        self._num_candidates = settings.num_candidates if self._negatives.needs_candidates else 1
        self._worker_seed: int | None = None
        _carry_semantic_rows(dataset)
        if sampler is None:
            rank = 0 if config["single_spec"] else int(config["local_rank"]) + int(config["offset"] or 0)
            training = TrainingInteractions.from_dataset(dataset)
            sampler = CandidateSampler(
                training.n_users,
                training.n_items,
                {"train": (training.users, training.items)},
                distribution=self._negatives.distribution,
                alpha=settings.popularity_alpha,
                seed=int(config["seed"]) + rank,
            )
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def _set_neg_sample_args(self, config: Any, dataset: Dataset, dl_format: Any, neg_sample_args: Mapping[str, Any]) -> None:
        args = neg_sample_args or {}
        plain = args.get("distribution") in {"uniform", "none", None} and args.get("sample_num") in {1, "none", None}
        if not plain or args.get("dynamic"):
            raise ConfigError(
                f"train_neg_sample_args asks for {dict(args)}, expected uniform, sample_num 1, not dynamic; "
                f"choose negatives with negative_sampler and num_candidates instead"
            )
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        self.dl_format, self.neg_sample_args, self.times = dl_format, args, 1
        self.neg_prefix = config["NEG_PREFIX"]
        self.neg_item_id = self.neg_prefix + self.iid_field
        dataset.copy_field_property(self.neg_item_id, self.iid_field)

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["train_batch_size"]
        self.set_batch_size(self.step)

    def collate_fn(self, index: list[int]) -> Interaction:
        """Assemble the batch of these training rows."""
        rows = torch.as_tensor(index, dtype=torch.int64)
        columns = self._dataset.inter_feat.interaction
        batch = self.transform(self._dataset, Interaction({name: column[rows] for name, column in columns.items()}))
        batch.update(Interaction({self.neg_item_id: self._draw(batch[self.uid_field], batch[self.iid_field])}))
        return batch

    def _draw(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed and isinstance(self._sampler, CandidateSampler):
            # Workers are copies of this process and start from the same state in every epoch; the seed that torch gives
            # each of them differs by worker and by epoch.
            self._sampler.reseed(worker.seed)
            self._worker_seed = worker.seed
        count = self._num_candidates
        if isinstance(self._sampler, CandidateSampler):
            drawn = self._sampler.sample_candidates(users.numpy(), count)  # [B, K]
        else:
            flat = self._sampler.sample_by_user_ids(users.numpy(), items.numpy(), count)  # [K * B]
            drawn = flat.view(count, len(users)).t()  # [B, K]
        return drawn if self._negatives.needs_candidates else drawn[:, 0]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the shuffle and of the draws, tensors and integers only, to resume between two epochs."""
        state: dict[str, Any] = {"generator": self.generator.get_state()}
        if isinstance(self._sampler, CandidateSampler):
            state["sampler"] = self._sampler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.generator.set_state(state["generator"].cpu())
        if "sampler" in state and isinstance(self._sampler, CandidateSampler):
            self._sampler.load_state_dict(state["sampler"])


def _carry_semantic_rows(dataset: Dataset) -> None:
    """Add the row of each interaction's vector to the interaction, so that both move together from here on."""
    vectors = vectors_of(dataset)
    if vectors is None or SEMANTIC_ROW in dataset.inter_feat:
        return
    if len(vectors.pair_rows) != len(dataset):
        raise ArtifactError(
            f"the semantic vectors describe {len(vectors.pair_rows)} training interactions, expected {len(dataset)}; "
            f"build them again for this split"
        )
    rows = torch.as_tensor(vectors.pair_rows.copy(), dtype=torch.int64)
    if len(rows) and not -1 <= int(rows.min()) <= int(rows.max()) < len(vectors.pair_vectors):
        raise ArtifactError(
            f"the semantic vectors name rows {int(rows.min())}..{int(rows.max())}, "
            f"expected -1..{len(vectors.pair_vectors) - 1}; the store is cut short or of another run, build it again"
        )
    dataset.inter_feat.interaction[SEMANTIC_ROW] = rows


def build_train_loader(config: Any, train_data: Any) -> HNLMTrainDataLoader:
    """Replace RecBole's training loader with ours, over the same dataset.

    Args:
        config: RecBole's configuration with our keys in it.
        train_data: RecBole's training loader, whose dataset may carry semantic vectors.

    Raises:
        ArtifactError: as :class:`HNLMTrainDataLoader`.
        ConfigError: as :class:`HNLMTrainDataLoader`.
        DataError: if a user is left without an item that could be a negative.
    """
    return HNLMTrainDataLoader(config, cast("Dataset", train_data._dataset), shuffle=bool(config["shuffle"]))
