"""Finding model and trainer classes by name: ours first, then RecBole's general recommenders.

RecBole's convention is kept: class ``Name`` lives in a module called ``name`` (lower case). A new model of ours is one file
below ``recbole_hnlm/model/`` and one ``properties/model/<Name>.yaml``; nothing has to be registered by hand.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import Any

import recbole.model
from recbole.utils import get_trainer as recbole_get_trainer

import recbole_hnlm.model
from recbole_hnlm.errors import ConfigError
from recbole_hnlm.trainer.factory import safe_trainer

__all__ = ["get_model_class", "get_trainer_class", "model_names"]

_RECBOLE_GENERAL = "recbole.model.general_recommender"
_OTHER_KINDS = {
    "sequential_recommender": "sequential",
    "context_aware_recommender": "context-aware",
    "knowledge_aware_recommender": "knowledge-aware",
    "exlib_recommender": "decision-tree",
}


def _own_modules() -> dict[str, str]:
    """Map lower-case model names to our modules, without importing the modules."""
    package = recbole_hnlm.model
    found = pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")
    return {info.name.rpartition(".")[2]: info.name for info in found if not info.ispkg}


def _recbole_folder(kind: str) -> Path:
    return Path(recbole.model.__file__).parent / kind


def _module_of(name: str) -> str | None:
    own = _own_modules().get(name.lower())
    if own is not None:
        return own
    is_recboles = name.isidentifier() and (_recbole_folder("general_recommender") / f"{name.lower()}.py").is_file()
    return f"{_RECBOLE_GENERAL}.{name.lower()}" if is_recboles else None


def _class_named_like(source: Path) -> str | None:
    """Read, without importing, the name of the class that a module is named after."""
    names = re.findall(r"^class (\w+)\(", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return next((name for name in names if name.lower() == source.stem), None)


def model_names() -> tuple[str, ...]:
    """Names of every model that can be given as ``--model``, sorted."""
    sources = [Path(spec.origin) for spec in map(importlib.util.find_spec, _own_modules().values()) if spec and spec.origin]
    sources += _recbole_folder("general_recommender").glob("[!_]*.py")
    return tuple(sorted({name for name in map(_class_named_like, sources) if name}))


def _unknown_model(name: str) -> ConfigError:
    known = model_names()
    for folder, kind in _OTHER_KINDS.items():
        if name.isidentifier() and (_recbole_folder(folder) / f"{name.lower()}.py").is_file():
            return ConfigError(f"model {name!r} is one of RecBole's {kind} models; recbole-hnlm runs general recommenders only")
    same = [candidate for candidate in known if candidate.lower() == name.lower()]
    if same:
        return ConfigError(f"no model is named {name!r}: names are case-sensitive, use --model={same[0]}")
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    hint = f"the nearest is {by_lower[near[0]]}" if near else f"known models are {', '.join(known)}"
    return ConfigError(f"no model is named {name!r}: {hint}")


def get_model_class(name: str) -> type[Any]:
    """Return the model class of a name, from ``recbole_hnlm.model`` or RecBole's general recommenders.

    Raises:
        ConfigError: no such model (names the nearest), or a RecBole model of another kind.
    """
    module_name = _module_of(name)
    if module_name is None:
        raise _unknown_model(name)
    model_class = getattr(importlib.import_module(module_name), name, None)
    if not isinstance(model_class, type):
        raise _unknown_model(name)
    return model_class


def get_trainer_class(model_class: type[Any], config: Any) -> type[Any]:
    """Return the trainer of a model with safe checkpoints, right metrics and CPU data parallelism mixed in.

    Args:
        model_class: its class attribute ``trainer_class``, where present, names the trainer; else RecBole's rule decides.
        config: read for ``MODEL_TYPE`` and ``model``.
    """
    base = getattr(model_class, "trainer_class", None) or recbole_get_trainer(config["MODEL_TYPE"], config["model"])
    return safe_trainer(base)
