"""Finding models and negative samplers by name: ours first, then RecBole's general recommenders.

RecBole's convention is kept: class ``Name`` lives in a module called ``name`` (lower case). A new model of ours is one file
below ``recbole_hnlm/model/`` and one ``properties/model/<Name>.yaml``, a new sampler one file below
``recbole_hnlm/negative_sampler/``; nothing has to be registered by hand.
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

from recbole_hnlm.utils.errors import ConfigError

__all__ = ["get_model_class", "get_negative_sampler", "model_names", "negative_sampler_names"]

_OWN_MODELS = "recbole_hnlm.model"
_OWN_SAMPLERS = "recbole_hnlm.negative_sampler"
_PACKAGE = Path(__file__).resolve().parent.parent
_RECBOLE_GENERAL = "recbole.model.general_recommender"
_OTHER_KINDS = {
    "sequential_recommender": "sequential",
    "context_aware_recommender": "context-aware",
    "knowledge_aware_recommender": "knowledge-aware",
    "exlib_recommender": "decision-tree",
}


def _own_modules() -> dict[str, str]:
    """Map lower-case model names to our modules, without importing the modules."""
    found = pkgutil.iter_modules(importlib.import_module(_OWN_MODELS).__path__, prefix=f"{_OWN_MODELS}.")
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


def negative_sampler_names() -> tuple[str, ...]:
    """Return the values that the key ``negative_sampler`` may take, sorted: the files that define ``SAMPLER``."""
    sources = (_PACKAGE / "negative_sampler").glob("*.py")
    return tuple(sorted(path.stem for path in sources if "\nSAMPLER = " in path.read_text(encoding="utf-8")))


def get_negative_sampler(name: str) -> Any:
    """Return the :class:`recbole_hnlm.negative_sampler.base.NegativeSampler` of a name, importing its module now.

    Raises:
        ConfigError: if there is none; the message names the nearest one.
    """
    names = negative_sampler_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"negative_sampler {name!r} is unknown, expected one of {', '.join(names)}; did you mean {nearest!r}?"
        )
    return importlib.import_module(f"{_OWN_SAMPLERS}.{name}").SAMPLER
