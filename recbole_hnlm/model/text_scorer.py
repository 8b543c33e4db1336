"""How well the texts of items fit a user's training items: a score of every item, without training.

Symbols: n users of a batch, U users and I items including the padding id 0, T the dimension of the text vectors; x_i of unit
length, N_u the distinct training items of u that have text.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.data.semantics import mean_item_vectors
from recbole_hnlm.model.text_metric import learn_metric, mapped
from recbole_hnlm.utils.kernels import compiled, run_rows
from recbole_hnlm.utils.pairs import pair_matrix
from recbole_hnlm.utils.scores import standardise_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.model.text_metric import TextMetric

__all__ = ["TextScorer", "kernel_block", "unit_rows"]

_logger = logging.getLogger(__name__)

_KERNEL_BYTES = _ROWS_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 28
_KERNEL_ROWS = 256


def unit_rows(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return rows ``[I, T]`` of unit length in float32, and zeros where ``mask`` (bool ``[I]``) is False."""
    return F.normalize(vectors.float(), dim=1) * mask[:, None]


def kernel_block(rows: torch.Tensor, columns: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return ``exp((cos(x_k, x_i) - 1) / tau)``, in (0, 1], of unit rows ``[m, T]`` and ``[c, T]``, ``[m, c]``."""
    return (rows @ columns.t()).sub_(1.0).div_(temperature).exp_()


class TextScorer:
    r"""Scores all items for users by their texts.

    ``mean``: ``cos(mean_{k in N_u} x_k, x_i)``. ``kernel``: ``sum_{k in N_u} exp((cos(x_k, x_i) - 1) / tau)``, a kernel density
    estimate of the user's taste on the unit sphere (the von Mises-Fisher kernel of concentration 1 / tau; Hall, Watson and
    Cabrera, "Kernel density estimation with spherical data", Biometrika 74(4), 1987); for large tau it ranks as the mean does.

    Attributes:
        known: which items have text, bool ``[I]``; the scores of others mean nothing.
    """

    def __init__(  # noqa: PLR0917 -- what the score is made of
        self,
        vectors: NDArray[np.floating[Any]],
        mask: NDArray[np.bool_],
        training: TrainingInteractions,
        form: Literal["mean", "kernel"],
        temperature: float,
        device: torch.device,
        kernel_bytes: int = _KERNEL_BYTES,
        metric_seed: int | None = None,
        rows_bytes: int = _ROWS_BYTES,
    ) -> None:
        """Take the items' vectors and the training interactions.

        Args:
            vectors: of the items' texts, of any length, float16 or float32 ``[I, T]``.
            mask: which items have one, bool ``[I]``.
            training: the training split.
            form: which score.
            temperature: tau > 0, read by ``kernel``.
            device: where scores are computed.
            kernel_bytes: the kernel of all pairs of items is kept while it takes no more than this, and computed in blocks for
                each batch otherwise.
            metric_seed: seed of the learned metric; None reads the texts as they are.
            rows_bytes: the standardised scores of users are kept while those of all users take no more than this.
        """
        self._form, self._temperature, self._device, self._kernel_bytes = form, temperature, device, kernel_bytes
        self._rows_bytes = rows_bytes
        self._vectors, self._training, self._metric_seed = vectors, training, metric_seed
        self._metric: TextMetric | None = None
        self._mask = np.array(mask, dtype=np.bool_)
        self.known = torch.from_numpy(self._mask).to(device)

    @property
    def metric(self) -> TextMetric | None:
        """The learned metric; None before it was learned or given."""
        return self._metric

    @metric.setter
    def metric(self, metric: TextMetric | None) -> None:
        if metric is not self._metric and (metric is None or self._metric is None or not metric.equals(self._metric)):
            for name in ("units", "_means", "_kernel", "_kept_rows"):
                self.__dict__.pop(name, None)
            self._metric = metric

    @cached_property
    def units(self) -> torch.Tensor:
        """Items' vectors of unit length, float32 ``[I, T]``: made once, not for every batch.

        The metric is learned here where it is wanted and none was given, or one of other texts.
        """
        units = unit_rows(torch.as_tensor(np.ascontiguousarray(self._vectors)).to(self._device), self.known)
        if self._metric_seed is None:
            return units
        if self._metric is not None and not self._metric.fits(units, self.known):
            _logger.info("the text metric of the checkpoint was learned of other texts: it is learned anew")
            self._metric = None
        if self._metric is None:
            self._metric = learn_metric(units, self.known, self._training, self._metric_seed)
        return mapped(units, self._metric.weight.to(units), self._metric.bias.to(units)) * self.known[:, None]

    def standardised(self, users: torch.Tensor) -> torch.Tensor:
        """Return the scores with mean 0 and standard deviation 1 over the items that have text, float32 ``[n, I]``.

        An item without text has 0, and so have all items for a user without text. A model is evaluated more than once and its
        texts stay the same: rows are kept while those of all users take little memory.
        """
        kept = self._rows_with(users)
        return standardise_items(self.scores(users), self.known) if kept is None else kept[users]

    def add_to(self, scores: torch.Tensor, users: torch.Tensor, weight: float) -> None:
        """Add ``weight`` times :meth:`standardised` to scores ``[n, I]``, in place."""
        kept = self._rows_with(users)
        if kept is None or kept.device.type != "cpu":
            scores.add_(self.standardised(users), alpha=weight)
            return
        target = scores.numpy()
        run_rows(_add_rows, len(users), kept.numpy(), users.numpy(), target.dtype.type(weight), target)

    def _rows_with(self, users: torch.Tensor) -> torch.Tensor | None:
        """Return the rows that are kept, those of these users among them; None where none are kept."""
        kept = self._kept_rows
        if kept is not None and len(new := users[~self._is_kept[users]]):
            kept[new] = standardise_items(self.scores(new), self.known)
            self._is_kept[new] = True
        return kept

    @cached_property
    def _kept_rows(self) -> torch.Tensor | None:
        """Room for the rows of all users, float32 ``[U, I]``, or None where it is too much; what is written takes memory."""
        shape = (self._training.n_users, len(self.units))
        self._is_kept = torch.zeros(shape[0], dtype=torch.bool, device=self._device)
        return torch.empty(shape, device=self._device) if 4 * shape[0] * shape[1] <= self._rows_bytes else None

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """Return the scores of all items for users (int64 ``[n]``), float32 ``[n, I]``; a user without text has equal ones."""
        return self._means[users] @ self.units.t() if self._form == "mean" else self._kernel_scores(users)

    @cached_property
    def _means(self) -> torch.Tensor:
        vectors = self._vectors if self._metric_seed is None else self.units.cpu().numpy()
        means, known = mean_item_vectors(self._training, vectors, self._mask)
        return unit_rows(torch.from_numpy(means).to(self._device), torch.from_numpy(known).to(self._device))

    @cached_property
    def _history(self) -> sp.csr_matrix:
        """One where the item is in N_u, ``[U, I]``."""
        training, kept = self._training, self._mask[self._training.items]
        return pair_matrix(training.users[kept], training.items[kept], (training.n_users, training.n_items))

    @cached_property
    def _kernel(self) -> torch.Tensor | None:
        """The kernel of all pairs of items, ``[I, I]``, or None where it would take too much memory.

        It is symmetric, so that one half is computed and the other copied.
        """
        count = len(self.units)
        if 4 * count * count > self._kernel_bytes:
            return None
        kernel = self.units.new_empty(count, count)
        for start in range(0, count, _KERNEL_ROWS):
            stop = start + _KERNEL_ROWS
            kernel[start:stop, start:] = kernel_block(self.units[start:stop], self.units[start:], self._temperature)
            kernel[stop:, start:stop] = kernel[start:stop, stop:].t()
        return kernel

    def _kernel_scores(self, users: torch.Tensor) -> torch.Tensor:
        history = self._history[users.cpu().numpy()]
        if self._kernel is not None:
            return _product(history, self._kernel)
        # Items of these histories alone against all items, some columns at a time.
        owned, places = np.unique(history.indices, return_inverse=True)
        compact = sp.csr_matrix((history.data, places, history.indptr), shape=(len(users), len(owned)))
        rows = self.units[torch.from_numpy(owned).to(self._device)]
        width = max(1, _BLOCK_BYTES // (4 * max(len(owned), 1)))
        blocks = [
            _product(compact, kernel_block(rows, self.units[start : start + width], self._temperature))
            for start in range(0, len(self.units), width)
        ]
        return torch.cat(blocks, dim=1)


@compiled()
def _sum_rows(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    pointers: NDArray[np.int32],
    columns: NDArray[np.int32],
    dense: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write rows ``start..stop`` of the product of a matrix of ones and a dense one."""
    width = dense.shape[1]
    for row in range(start, stop):
        target = out[row]
        target[:] = 0.0
        for place in range(pointers[row], pointers[row + 1]):
            source = dense[columns[place]]
            for column in range(width):
                target[column] += source[column]


@compiled(fastmath={"contract"})
def _add_rows(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    rows: NDArray[np.float32],
    places: NDArray[np.int64],
    weight: np.float32,
    out: NDArray[np.float32],
) -> None:
    """Add ``weight`` times the rows of these places to rows ``start..stop``."""
    for row in range(start, stop):
        source, target = rows[places[row]], out[row]
        for column in range(len(source)):
            target[column] += weight * source[column]


def _product(sparse: sp.csr_matrix, dense: torch.Tensor) -> torch.Tensor:
    """Return the product of a matrix of ones and a dense one; each row is summed in the order of its columns."""
    if dense.device.type == "cpu":
        out = torch.empty(sparse.shape[0], dense.shape[1], dtype=dense.dtype)
        run_rows(_sum_rows, len(out), sparse.indptr, sparse.indices, dense.numpy(), out.numpy())
        return out
    coo = sparse.tocoo()
    places = torch.from_numpy(np.stack([coo.row, coo.col]))
    return torch.sparse_coo_tensor(places, torch.from_numpy(coo.data), sparse.shape).to(dense.device) @ dense
