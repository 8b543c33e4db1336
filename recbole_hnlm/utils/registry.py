"""Finding models and negative samplers by name: ours, RecBole's general recommenders, and those of other packages.

Three ways lead to a model, and likewise to a negative sampler:

- its name: RecBole's convention is kept, class ``Name`` lives in a module called ``name`` (lower case). A model of ours is one
  file below ``recbole_hnlm/model/`` and one ``properties/model/<Name>.yaml``, a sampler one file below
  ``recbole_hnlm/negative_sampler/`` that defines ``SAMPLER``; nothing has to be registered by hand;
- the name of an entry point of the group ``recbole_hnlm.models`` or ``recbole_hnlm.negative_samplers``;
- ``package.module:Object``, which imports that module.

The keys of one from outside come along in a YAML file in the folder of its module: ``<Class>.yaml`` of a model,
``<module>.yaml`` of a sampler (docs/howto-extend.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recbole.model

from recbole_hnlm.utils.errors import ConfigError, MissingDependencyError
from recbole_hnlm.utils.names import closest, did_you_mean
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.values import load_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Container

__all__ = [
    "get_model_class",
    "get_negative_sampler",
    "is_checkpoint",
    "is_from_outside",
    "is_import_path",
    "model_names",
    "model_yaml",
    "model_yamls",
    "negative_sampler_keys",
    "negative_sampler_names",
]

_OWN_MODELS = "recbole_hnlm.model"
_OWN_SAMPLERS = "recbole_hnlm.negative_sampler"
_MODEL_GROUP = "recbole_hnlm.models"
_SAMPLER_GROUP = "recbole_hnlm.negative_samplers"
_PACKAGE = Path(__file__).resolve().parent.parent
_RECBOLE_GENERAL = "recbole.model.general_recommender"
_OTHER_KINDS = {
    "sequential_recommender": "sequential",
    "context_aware_recommender": "context-aware",
    "knowledge_aware_recommender": "knowledge-aware",
    "exlib_recommender": "decision-tree",
}


# --- what other packages bring -------------------------------------------------------------------------------------------


def is_checkpoint(name: str) -> bool:
    """Whether a name means a file of a trained model rather than a model."""
    return name.endswith(".pth")


def is_import_path(name: str) -> bool:
    """Whether a name has the form ``package.module:Object``, which imports code."""
    return ":" in name


@cache
def _entry_points(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the installed entry points of a group by name; one that two packages declare alike counts once."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, {}).setdefault(point.value, point)
    return {name: tuple(points.values()) for name, points in found.items()}


def _entry_point_path(name: str, group: str, key: str, built_in: Callable[[], Container[str]]) -> str | None:
    """Return the import path of the one entry point of a name, or None where there is none.

    Raises:
        ConfigError: two packages claim the name, or one claims a name that is built in.
    """
    points = _entry_points(group).get(name, ())
    if not points:
        return None
    is_ours = name in built_in()
    if len(points) == 1 and not is_ours:
        return points[0].value
    claims = " and ".join(f"{point.dist.name if point.dist else 'a package'} ({point.value})" for point in points)
    if is_ours:
        raise ConfigError(
            f"{key} {name!r} is built in, and {claims} claims the name too: uninstall that package or rename its entry point"
        )
    raise ConfigError(
        f"{key} {name!r} is an entry point of {claims}: choose by --{key}={points[0].value}, or uninstall one of the packages"
    )


def _import(path: str, key: str) -> Any:
    """Import ``package.module:Object``.

    Raises:
        ConfigError: the path is not of this form, or names a module or an object that does not exist.
        MissingDependencyError: the module imports a package that is not installed.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise ConfigError(f"{key} {path!r}: expected a name or package.module:Object")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{key} {path!r}: there is no module {error.name}; install its package, or set PYTHONPATH to the folder that "
                f"holds {module_name.partition('.')[0]}"
            ) from error
        raise MissingDependencyError(f"{key} {path!r} needs the package {error.name}: pip install {error.name}") from error
    if not hasattr(module, attribute):
        near = closest(attribute, vars(module))
        hint = f"; did you mean {module_name}:{near[0]}?" if near else f"; define it in {module.__file__}"
        raise ConfigError(f"{key} {path!r}: module {module_name} has no {attribute}{hint}")
    return getattr(module, attribute)


# --- models --------------------------------------------------------------------------------------------------------------


def _recbole_folder(kind: str) -> Path:
    return Path(recbole.model.__file__).parent / kind


def _class_named_like(source: Path) -> str | None:
    """Read, without importing, the name of the class that a module is named after."""
    names = re.findall(r"^class (\w+)\(", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return next((name for name in names if name.lower() == source.stem), None)


def _own_models() -> dict[str, str]:
    """Map the names of our models to their modules, without importing them; a helper has no YAML file and is none."""
    found = pkgutil.iter_modules(importlib.import_module(_OWN_MODELS).__path__, prefix=f"{_OWN_MODELS}.")
    specs = [importlib.util.find_spec(info.name) for info in found if not info.ispkg]
    named = {_class_named_like(Path(spec.origin)): spec.name for spec in specs if spec is not None and spec.origin}
    return {name: module for name, module in named.items() if name and _shipped_yaml(name).is_file()}


def _built_in_models() -> dict[str, str]:
    """Map the names of our models and of RecBole's general recommenders to their modules."""
    sources = _recbole_folder("general_recommender").glob("[!_]*.py")
    recboles = {_class_named_like(source): f"{_RECBOLE_GENERAL}.{source.stem}" for source in sources}
    return {**{name: module for name, module in recboles.items() if name}, **_own_models()}


def model_names() -> tuple[str, ...]:
    """Names of every model that can be given as ``--model``, sorted."""
    return tuple(sorted({*_built_in_models(), *_entry_points(_MODEL_GROUP)}))


def _unknown_model(name: str) -> ConfigError:
    known = model_names()
    for folder, kind in _OTHER_KINDS.items():
        if name.isidentifier() and (_recbole_folder(folder) / f"{name.lower()}.py").is_file():
            return ConfigError(f"model {name!r} is one of RecBole's {kind} models; recbole-hnlm runs general recommenders only")
    same = [candidate for candidate in known if candidate.lower() == name.lower()]
    if same:
        return ConfigError(f"no model is named {name!r}: names are case-sensitive, use --model={same[0]}")
    near = closest(name, known)
    hint = f"the nearest is {near[0]}" if near else f"known models are {', '.join(known)}"
    return ConfigError(f"no model is named {name!r}: {hint}; one of your own is --model=package.module:Class")


def get_model_class(name: str) -> type[Any]:
    """Return the model class of a name, an entry point or ``package.module:Class``.

    Raises:
        ConfigError: no such model (names the nearest), a RecBole model of another kind, not a model at all, or a name
            that two packages claim.
        MissingDependencyError: its module imports a package that is not installed.
    """
    if is_import_path(name):
        return _as_model(_import(name, "model"), name)
    built_in = _built_in_models()
    path = _entry_point_path(name, _MODEL_GROUP, "model", lambda: built_in)
    if path is not None:
        model_class = _as_model(_import(path, "model"), path)
        if model_class.__name__ != name:
            raise ConfigError(
                f"model {name!r} is an entry point of the class {model_class.__name__}: both need the same name, by which "
                f"checkpoints are found again; say --model={path}, or rename the entry point"
            )
        return model_class
    if name not in built_in:
        raise _unknown_model(name)
    found: type[Any] = getattr(importlib.import_module(built_in[name]), name)
    return found


def _recommender() -> type[Any]:
    # Imported when it is needed, since it brings torch along.
    base: type[Any] = importlib.import_module("recbole.model.abstract_recommender").AbstractRecommender
    return base


def _as_model(found: Any, path: str) -> type[Any]:
    if not (isinstance(found, type) and issubclass(found, _recommender())):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise ConfigError(f"model {path!r} is {what}, expected a class derived from RecBole's GeneralRecommender")
    return found


def _shipped_yaml(name: str) -> Path:
    return properties_dir() / "model" / f"{name}.yaml"


def model_yaml(model_class: type[Any]) -> Path:
    """Return where the YAML file of a class is expected: ours and RecBole's where they are shipped, else next to its module.

    A class of a notebook has no module file; its YAML file is expected in the current folder.
    """
    name, module = model_class.__name__, model_class.__module__
    if module.startswith("recbole.model."):
        return Path(recbole.__file__).parent / "properties" / "model" / f"{name}.yaml"
    if module.startswith(f"{_OWN_MODELS}."):
        return _shipped_yaml(name)
    try:
        folder = Path(inspect.getfile(model_class)).parent
    except (TypeError, OSError):
        folder = Path.cwd()
    return folder / f"{name}.yaml"


def model_yamls(model_class: type[Any]) -> list[Path]:
    """Return the YAML files that hold a class's keys and defaults, later ones win.

    A class from outside inherits the keys of the classes that it is derived from, as it inherits their code; a built-in one
    states all of its keys.
    """
    classes = [model_class]
    if is_from_outside(model_class):
        classes = [base for base in reversed(model_class.__mro__) if issubclass(base, _recommender())]
    return [file for file in map(model_yaml, classes) if file.is_file()]


def is_from_outside(model_class: type[Any]) -> bool:
    """Whether a model class is neither ours nor RecBole's."""
    return not model_class.__module__.startswith(("recbole.model.", f"{_OWN_MODELS}."))


# --- negative samplers ---------------------------------------------------------------------------------------------------


@cache
def _own_samplers() -> frozenset[str]:
    sources = (_PACKAGE / "negative_sampler").glob("*.py")
    return frozenset(path.stem for path in sources if "\nSAMPLER = " in path.read_text(encoding="utf-8"))


def negative_sampler_names() -> tuple[str, ...]:
    """Return the names that the key ``negative_sampler`` may take, sorted: the files that define ``SAMPLER``, entry points."""
    return tuple(sorted({*_own_samplers(), *_entry_points(_SAMPLER_GROUP)}))


def _outside_sampler(name: str) -> str | None:
    """Return the import path of a sampler from outside, or None of one of ours."""
    if is_import_path(name):
        return name
    return _entry_point_path(name, _SAMPLER_GROUP, "negative_sampler", _own_samplers)


def get_negative_sampler(name: str) -> Any:
    """Return the :class:`recbole_hnlm.negative_sampler.base.NegativeSampler` of a name, importing its module now.

    Raises:
        ConfigError: there is none (names the nearest), something that is not a sampler, or a name that two packages claim.
        MissingDependencyError: its module imports a package that is not installed.
    """
    path = _outside_sampler(name)
    if path is None and name not in _own_samplers():
        names = negative_sampler_names()
        raise ConfigError(
            f"negative_sampler {name!r} is unknown, expected one of {', '.join(names)}{did_you_mean(name, names)}"
        )
    found = _import(path or f"{_OWN_SAMPLERS}.{name}:SAMPLER", "negative_sampler")
    if not isinstance(found, importlib.import_module(f"{_OWN_SAMPLERS}.base").NegativeSampler):
        raise ConfigError(
            f"negative_sampler {path!r} is of type {type(found).__name__}, expected a NegativeSampler of "
            f"recbole_hnlm.negative_sampler.base"
        )
    return found


def negative_sampler_keys(name: str) -> dict[str, Any]:
    """Return the keys and defaults that a sampler from outside brings along, read from ``<module>.yaml`` next to its module.

    Raises:
        ConfigError: as :func:`get_negative_sampler`, or the file is no YAML.
    """
    path = _outside_sampler(name)
    if path is None:
        return {}
    get_negative_sampler(name)
    file = Path(str(importlib.import_module(path.partition(":")[0]).__file__)).with_suffix(".yaml")
    return load_yaml(file) if file.is_file() else {}
