"""Tensors with a manifest: what is read back is whole, of the expected names, and finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["TensorArtifact", "refuse_endless"]


class TensorArtifact(Artifact):
    """A safetensors file and its manifest."""

    def write_tensors(self, tensors: Mapping[str, torch.Tensor], manifest: Mapping[str, Any]) -> None:
        """Write the tensors, then the manifest with the file's digest.

        Raises:
            ArtifactError: a file cannot be written.
        """
        self.write_bytes([save(dict(tensors))], manifest)

    def read_tensors(self, names: Iterable[str] = ()) -> dict[str, torch.Tensor]:
        """Read the tensors after checking the file against its manifest.

        Args:
            names: of tensors that must be there.

        Raises:
            ArtifactError: as :meth:`read_bytes`; or the file is no safetensors file, lacks a tensor or holds numbers that are
                not finite.
        """
        try:
            tensors = load(self.read_bytes())
        except SafetensorError as error:
            raise ArtifactError(f"{self.path} is corrupt ({error}); {self.remedy}") from error
        if missing := [name for name in names if name not in tensors]:
            raise ArtifactError(f"{self.path} lacks the tensor {missing[0]}; {self.remedy}")
        refuse_endless(tensors, str(self.path), self.remedy)
        return tensors


def refuse_endless(tensors: Mapping[str, torch.Tensor], source: str, remedy: str) -> None:
    """Refuse tensors with numbers that are not finite.

    Raises:
        ArtifactError: names the first such tensor.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{source}: {name} holds numbers that are not finite; {remedy}")
