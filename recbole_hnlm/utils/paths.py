"""Where the shipped YAML files are: ours, however the package was installed, and RecBole's."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import recbole

from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.values import load_yaml

__all__ = ["properties_dir", "recbole_downloads"]

_MARKER = "overall.yaml"
_DOWNLOADS = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"


def _source_tree() -> Path:
    return Path(__file__).resolve().parent.parent.parent


def _sibling(root: Path) -> Path:
    """Return ``properties/`` next to the package in a source tree or an editable install."""
    return root / "properties"


def _packaged() -> Path | None:
    """Return the installed package ``recbole_hnlm.properties``, or None when there is none on disk."""
    try:
        folder = resources.files("recbole_hnlm.properties")
    except ModuleNotFoundError:
        return None
    # A namespace package yields a MultiplexedPath, which is not a path on disk.
    return folder if isinstance(folder, Path) else None


def properties_dir(root: Path | None = None) -> Path:
    """Return the folder that holds ``overall.yaml``, ``model/`` and ``dataset/``.

    The folder next to the running package wins when that is a source tree (it has a ``pyproject.toml``), because the package
    ``recbole_hnlm.properties`` may belong to an editable install of *another* checkout. A wheel has no such sibling and takes
    the installed package.

    Args:
        root: the folder that contains the package; None means the folder of the running code.

    Raises:
        ConfigError: neither place holds the YAML files; names both.
    """
    root = root or _source_tree()
    sibling, packaged = _sibling(root), _packaged()
    if (sibling / _MARKER).is_file() and (root / "pyproject.toml").is_file():
        return sibling
    for folder in (packaged, sibling):
        if folder is not None and (folder / _MARKER).is_file():
            return folder
    raise ConfigError(
        f"the YAML files of recbole-hnlm are missing: {_MARKER} is neither in the package recbole_hnlm.properties "
        f"({packaged or 'not installed'}) nor in {sibling}; reinstall with: pip install --force-reinstall recbole-hnlm"
    )


def recbole_downloads() -> dict[str, str]:
    """Return the addresses of the datasets that RecBole knows, by name."""
    return {str(name): str(url) for name, url in load_yaml(_DOWNLOADS).items()}
