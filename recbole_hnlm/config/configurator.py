"""RecBole's configuration, made strict: nothing is evaluated, unknown keys are errors, ``sys.argv`` is never read."""

from __future__ import annotations

import copy
import logging
import os
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np
import torch
from recbole.config import Config as RecBoleConfig
from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

from recbole_hnlm.config.checkpoint_keys import keys_to_repeat, llm_places, parts_of_saved, taken_from_checkpoint
from recbole_hnlm.config.checks import (
    LAUNCHER_KEYS,
    UNLISTED_KEYS,
    check_dataset,
    check_keys,
    check_metrics,
    check_model,
    check_paths,
    check_pickled_caches,
    check_servers,
    dataset_folder,
)
from recbole_hnlm.config.data_forms import INTER_NUM_KEYS
from recbole_hnlm.config.model_keys import check_model_keys
from recbole_hnlm.config.normalize import normalize
from recbole_hnlm.config.reading import given_unread, unread_text
from recbole_hnlm.config.settings import HNLMSettings, setting_names, settings_of
from recbole_hnlm.config.value_checks import check_files, check_packages, check_training, check_types
from recbole_hnlm.evaluator.registry import metric_classes, recboles_metrics_only
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.given_paths import is_file
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import (
    get_model_class,
    is_checkpoint,
    is_from_outside,
    is_import_path,
    model_yaml,
    model_yamls,
    negative_sampler_keys,
)
from recbole_hnlm.utils.values import (
    ConfigLoader,
    load_yaml,
    merge,
    parse_value,
    plain,
    refuse_unbounded,
    split_argv,
    without_null_words,
    without_numpy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Config"]

_logger = logging.getLogger(__name__)

# Aliases that RecBole's code uses and that NumPy has dropped.
_NUMPY_ALIASES = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "float_": np.float64,
    "complex": np.complex128,
    "complex_": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
    "unicode_": np.str_,
}


def _text_choices(key: str) -> tuple[str, ...] | None:
    """Return the words that one of our text keys is limited to (empty: any text), or None for a key that takes no text."""
    field = HNLMSettings.model_fields.get(key)
    if field is None:
        return None
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    return () if set(get_args(field.annotation) or (field.annotation,)) <= {str, type(None)} else None


def _own_keys(model: str | type[Any], sampler: Any) -> set[str]:
    """Return the keys that a model's YAML files declare, and those that a negative sampler from outside brings along."""
    model_class = model if isinstance(model, type) else get_model_class(model)
    keys = {key for file in model_yamls(model_class) for key in load_yaml(file)}
    return keys | (negative_sampler_keys(sampler).keys() if isinstance(sampler, str) else set())


def _names(fuse_with: Any) -> list[str]:
    """Return the models that a value of ``fuse_with``, in any of its forms, names."""
    entries = fuse_with.split(",") if isinstance(fuse_with, str) else fuse_with if isinstance(fuse_with, list | tuple) else ()
    return [str(entry).strip() for entry in entries if not is_checkpoint(str(entry).strip())]


class Config(RecBoleConfig):
    """RecBole's ``Config`` with our keys, our models and checks before any work.

    Priority as in RecBole: shipped YAML (RecBole's, then ours: overall, model, dataset) < ``config_file_list`` <
    ``config_dict`` < ``argv``.

    Departures from RecBole: values are read as literals and never evaluated; ``sys.argv`` is not read; ``eval_args`` and
    ``train_neg_sample_args`` given in part are merged over the defaults; ``use_gpu=False`` keeps the run off the GPU; the
    user's own ``CUDA_VISIBLE_DEVICES`` is kept unless ``gpu_id`` is given; all problems are reported in one error.

    Args:
        model: name or class of the model; None takes the key ``model``.
        dataset: name of the dataset; None takes the key ``dataset``.
        config_file_list: YAML files, the later ones win.
        config_dict: keys and values; text values are parsed like those of the command line.
        argv: ``--key=value`` or ``--key value`` tokens.
        saved: what :meth:`to_saved` returned: the keys that were given then (they lose against the arguments above) and the
            defaults of that time, which replace today's.
        strict: refuse keys of ``config_dict`` and ``argv`` that nothing in this run reads, and warn of those of files. False is
            for one of several runs that share their keys.

    Attributes:
        unread: given keys that nothing in this run reads, and why.

    Raises:
        ConfigError: anything that is wrong with keys or values, in one line.
    """

    def __init__(
        self,
        model: str | type[Any] | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        argv: Sequence[str] = (),
        *,
        saved: Mapping[str, Mapping[str, Any]] | None = None,
        strict: bool = True,
    ) -> None:
        self._argv = tuple(argv)
        # A checkpoint's configuration: see recbole_hnlm.config.checkpoint_keys for what of it is taken.
        self._stored = saved
        self._saved: dict[str, dict[str, Any]] = {"given": {}, "defaults": {}}
        if saved is not None:
            sampler = {**(config_dict or {}), **split_argv(argv)}.get("negative_sampler")
            self._saved = taken_from_checkpoint(saved, _own_keys(model, sampler) if model is not None else ())
        self._texts: dict[str, str] = {}
        self._strict = strict
        self.unread: dict[str, str] = {}
        self.built_settings: HNLMSettings | None = None
        if isinstance(config_file_list, str):
            raise ConfigError(f"config_file_list: expected a list of files, got the text {config_file_list!r}")
        refuse_unbounded(config_dict, "config_dict")
        super().__init__(model, dataset, config_file_list, copy.deepcopy(without_numpy(dict(config_dict or {}))))

    @property
    def settings(self) -> HNLMSettings:
        """Our keys, typed and validated; built once, and again after a key was set."""
        if self.built_settings is None:
            self.built_settings = settings_of(self)
        return self.built_settings

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.built_settings = None

    def resolve(self, key: str, value: Any) -> None:
        """Put what a given value stands for in its place, also in what :meth:`to_saved` returns."""
        self[key] = self._requested[key] = self.external_config_dict[key] = value

    def given_for(self, model_class: type[Any]) -> dict[str, Any]:
        """Return the given keys but for those of this run's models that another one lacks."""
        models = [self.model_class, *map(get_model_class, _names(self.external_config_dict.get("fuse_with")))]
        foreign = set().union(*(_own_keys(model, None) for model in models)) - _own_keys(model_class, None)
        return {key: value for key, value in self.external_config_dict.items() if key not in foreign}

    def to_saved(self) -> dict[str, dict[str, Any]]:
        """Return plain values from which an equal configuration can be built again: see the argument ``saved``.

        What depends on the machine or on the loaded data (``gpu_id``, ``eval_batch_size``) is included only if it was given.
        """
        left_out = {"model", "dataset", "MODEL_TYPE", "resume", *LAUNCHER_KEYS}
        given = {key: self._requested[key] for key in self.external_config_dict if key not in left_out}
        defaults = {key: value for key, value in self.internal_config_dict.items() if key not in left_out}
        plain_parts = {"given": plain(given), "defaults": plain(defaults)}
        # Where the LLM's vectors lay is stored for the message that asks to name the place again; it is never obeyed.
        own = _own_keys(self.model_class, self.final_config_dict.get("negative_sampler"))
        return {**taken_from_checkpoint(plain_parts, own), "places": llm_places(plain_parts["given"])}

    # --- reading -----------------------------------------------------------------------------------------------------

    def compatibility_settings(self) -> None:
        """Give NumPy the aliases that RecBole needs where they are absent (RecBole itself fails on NumPy 2 here)."""
        for name, target in _NUMPY_ALIASES.items():
            if name not in vars(np):
                setattr(np, name, target)

    def _init_parameters_category(self) -> None:
        # Copies, because RecBole appends the keys of dataset YAML files to these lists.
        self.parameters = {
            "General": list(general_arguments),
            "Training": list(training_arguments),
            "Evaluation": list(evaluation_arguments),
            "Dataset": list(dataset_arguments),
            "HNLM": list(setting_names()),
        }

    def _build_yaml_loader(self) -> type[ConfigLoader]:
        return ConfigLoader

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        self._texts.update({key: value for key, value in config_dict.items() if isinstance(value, str)})
        return {key: parse_value(value) if isinstance(value, str) else value for key, value in config_dict.items()}

    def _load_config_files(self, file_list: Sequence[str] | None) -> dict[str, Any]:
        merged: dict[str, Any] = dict(self._saved["given"])
        for file in file_list or ():
            content = load_yaml(file)
            self._texts.update({key: value for key, value in content.items() if isinstance(value, str)})
            merged = merge(merged, without_null_words(content))
        return merged

    def _load_cmd_line(self) -> dict[str, Any]:
        texts: dict[str, Any] = dict(split_argv(self._argv))
        return self._convert_config_dict(texts)

    def _merge_external_config_dict(self) -> None:
        merged = merge(merge(self.file_config_dict, self.variable_config_dict), self.cmd_config_dict)
        self.external_config_dict = merged

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type[Any], str]:
        model = model if model is not None else self.external_config_dict.get("model")
        dataset = dataset if dataset is not None else self.external_config_dict.get("dataset")
        absent = [name for name, value in (("model", model), ("dataset", dataset)) if not value and value != 0]
        if absent:
            raise ConfigError("; ".join(f"no {name} given: use --{name}=NAME or `{name}: NAME` in YAML" for name in absent))
        self._refuse_saved_imports()
        model_class = model if isinstance(model, type) else get_model_class(str(model))
        return model_class.__name__, model_class, str(dataset)

    def _refuse_saved_imports(self) -> None:
        """Import no code that a saved configuration names by ``package.module:Object``: it may be anybody's file."""
        given = {**self.variable_config_dict, **self.cmd_config_dict}
        for key in ("negative_sampler", "teacher_model"):
            saved = [str(part.get(key)) for part in self._saved.values() if key in part]
            imported = next((value for value in saved if is_import_path(value)), None)
            if imported is not None and key not in given:
                raise ConfigError(
                    f"the saved configuration names {key} {imported!r}, and no code is imported because a file says so: if you "
                    f"trust it, give --{key}={imported} yourself"
                )

    def _load_internal_config_dict(self, model: str, model_class: type[Any], dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        folder = properties_dir()
        # RecBole has read the files of its own models.
        own = [] if model_class.__module__.startswith("recbole.") else model_yamls(model_class)
        for file in (folder / "overall.yaml", *own, folder / "dataset" / f"{dataset}.yaml"):
            if is_file(file):
                self.internal_config_dict.update(load_yaml(file))
        self._load_sampler_keys()
        self._load_part_keys()
        then = self._saved["defaults"]
        self.internal_config_dict.update({key: then[key] for key in then if key in self.internal_config_dict})
        self._restore_texts()

    def _load_sampler_keys(self) -> None:
        """Add the keys of a negative sampler from outside, which must not be keys of anything else."""
        name = self.external_config_dict.get("negative_sampler", self.internal_config_dict.get("negative_sampler"))
        own = negative_sampler_keys(name) if isinstance(name, str) else {}
        taken = sorted(own.keys() & self.internal_config_dict.keys())
        if taken:
            raise ConfigError(
                f"negative_sampler {name}: its YAML file declares {', '.join(taken)}, a key that exists: rename it"
            )
        self.internal_config_dict.update(own)

    def _load_part_keys(self) -> None:
        """Accept the keys of the models that ``fuse_with`` names; where the run's own model has one too, its default counts."""
        for name in _names(self.external_config_dict.get("fuse_with")):
            for file in model_yamls(get_model_class(name)):
                for key, value in load_yaml(file).items():
                    self.internal_config_dict.setdefault(key, value)

    def _restore_texts(self) -> None:
        """Keep the text of a value whose key takes text: ``--gpu_id=0``, ``--item_inter_num_interval=[5,9]``."""
        for key, text in self._texts.items():
            choices, value = _text_choices(key), self.external_config_dict.get(key)
            # An interval is text even where the dataset's files give none; "5,10" would be read as the tuple (5, 10).
            is_interval = key in INTER_NUM_KEYS
            takes_text = choices is not None or is_interval or isinstance(self.internal_config_dict.get(key), str)
            is_other_type = not isinstance(value, (str, type(None)) if is_interval else (str, type(None), tuple))
            # Some keys take the word "none", such as negative_route.
            is_word = value is None and text.lower() in (choices or ())
            if is_word or (takes_text and is_other_type):
                self.external_config_dict[key] = text.lower() if is_word else text

    def _get_final_config_dict(self) -> dict[str, Any]:
        return copy.deepcopy(merge(self.internal_config_dict, self.external_config_dict))

    # --- checking ----------------------------------------------------------------------------------------------------

    def _set_default_parameters(self) -> None:
        final = self.final_config_dict
        normalize(final, self.internal_config_dict)
        self._requested = copy.deepcopy(final)
        problems = self._problems()
        if problems:
            raise ConfigError("; ".join(problems))
        try:
            with recboles_metrics_only(final):
                super()._set_default_parameters()
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            raise ConfigError(f"RecBole refuses the configuration: {error}") from error
        final["valid_metric_bigger"] = not metric_classes()[final["valid_metric"].partition("@")[0].lower()].smaller

    def _problems(self) -> list[str]:
        final, external = self.final_config_dict, self.external_config_dict
        ours = set(setting_names())
        known = set(self.internal_config_dict) | LAUNCHER_KEYS | UNLISTED_KEYS | {"model", "dataset"}
        known |= {key for keys in self.parameters.values() for key in keys}
        recboles = {key: final[key] for key in external if key not in ours}
        problems = check_keys(external, known)
        if problems and is_from_outside(self.model_class) and not model_yaml(self.model_class).is_file():
            problems.append(f"keys of {self.model}'s own are declared in {model_yaml(self.model_class)}, which does not exist")
        problems += check_types(recboles, self.internal_config_dict)
        problems += check_model(self.model_class, self.model)
        problems += check_pickled_caches(final)
        problems += check_servers(final)
        problems += check_metrics(final)
        problems += check_training(final) + check_model_keys(self.model, final, self.internal_config_dict)
        problems += check_packages(self.model, final)
        data = dataset_folder(self.dataset, str(final["data_path"]))
        # Files are looked into where there can be any.
        problems += check_paths(final, data) or [
            *check_files(self.model, final, data),
            *check_dataset(self.dataset, final, self.model_class),
        ]
        problems += self._unread_problems()
        try:
            settings = settings_of(self)
            # Ranking may read vectors of texts; those of hard negatives are for training alone.
            problems += self._parts_to_repeat()
            if self._stored is not None and settings.ranks_with_texts:
                problems += self._places_to_repeat()
        except ConfigError as error:
            problems.append(str(error)[:2000])
        return problems

    def _unread_problems(self) -> list[str]:
        """Find the given keys that nothing reads; those that only files give, which runs may share, are warned of."""
        final, saved = self.final_config_dict, self._saved["given"]
        self.unread = given_unread(self.model_class, final, self.external_config_dict)
        if not self._strict:
            return []
        own = {**self.variable_config_dict, **self.cmd_config_dict}
        of_files = {key: reason for key, reason in self.unread.items() if key not in own and key not in saved}
        if of_files and int(final.get("local_rank") or 0) == 0:
            _logger.warning("configuration files: %s", "; ".join(unread_text(of_files)))
        return unread_text({key: reason for key, reason in self.unread.items() if key in own})

    def _parts_to_repeat(self) -> list[str]:
        parts = parts_of_saved(self._stored or {})
        if not parts or "fuse_with" in self.external_config_dict:
            return []
        return [
            f"the checkpoint's model ranks together with others, which no file may choose: repeat --fuse_with={parts}, or "
            "give --fuse_with=[] for the model alone"
        ]

    def _places_to_repeat(self) -> list[str]:
        repeat = keys_to_repeat(self._stored or {}, self.final_config_dict)
        if not repeat:
            return []
        return [f"the checkpoint's model ranks with vectors of texts whose place no file may choose: repeat {' '.join(repeat)}"]

    def _set_train_neg_sample_args(self) -> None:
        try:
            super()._set_train_neg_sample_args()
        except ValueError as error:
            raise ConfigError(f"{error}; samplers of recbole-hnlm are chosen by --negative_sampler") from error

    def _set_eval_neg_sample_args(self, phase: str) -> None:
        try:
            super()._set_eval_neg_sample_args(phase)
        except ValueError as error:
            raise ConfigError(f"eval_args mode for {phase}: expected full, uniN, popN or labeled: {error}") from error

    # --- devices -----------------------------------------------------------------------------------------------------

    def _init_device(self) -> None:
        final = self.final_config_dict
        gpu_id = final["gpu_id"]
        gpu_id = ",".join(map(str, gpu_id)) if isinstance(gpu_id, (tuple, list)) else str(gpu_id if gpu_id is not None else "")
        final["gpu_id"] = gpu_id
        wants_gpu = bool(final["use_gpu"]) and gpu_id != ""
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ
        is_spread = int(final.get("world_size") or 1) > 1 or "local_rank" in final or launched
        if wants_gpu and ("gpu_id" in self.external_config_dict or not is_spread):
            self._select_gpus(gpu_id)
        use_cuda = wants_gpu and torch.cuda.is_available()
        if "gpu_id" in self.external_config_dict and wants_gpu and gpu_id != "-1" and not use_cuda:
            _logger.warning("gpu_id=%s: PyTorch finds no such GPU here, so the run is on the CPU", gpu_id)
        # RecBole reads use_gpu again when it reports GPU memory.
        final["use_gpu"] = use_cuda
        if "local_rank" not in final:
            device = _own_gpu(int(os.environ["LOCAL_RANK"])) if use_cuda and launched else ("cuda" if use_cuda else "cpu")
            final.update(single_spec=True, local_rank=0, device=torch.device(device))
            return
        self._init_process_group(use_cuda)

    def _select_gpus(self, gpu_id: str) -> None:
        if "gpu_id" in self.external_config_dict or "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu_id

    def _init_process_group(self, use_cuda: bool) -> None:
        """Join the process group that the launcher's keys describe: NCCL on GPUs, Gloo on CPUs."""
        final = self.final_config_dict
        rank = int(final["local_rank"])
        if use_cuda and torch.cuda.device_count() < int(final["nproc"]):
            raise ConfigError(
                f"nproc={final['nproc']} needs as many GPUs, found {torch.cuda.device_count()}: "
                "name them with --gpu_id=0,1,... or train on CPUs with --use_gpu=False"
            )
        torch.distributed.init_process_group(
            backend="nccl" if use_cuda else "gloo",
            rank=rank + int(final["offset"]),
            world_size=int(final["world_size"]),
            init_method=f"tcp://{final['ip']}:{final['port']}",
        )
        if use_cuda:
            torch.cuda.set_device(rank)
        final.update(single_spec=False, device=torch.device("cuda", rank) if use_cuda else torch.device("cpu"))
        if rank != 0:
            final.update(state="error", show_progress=False, verbose=False)


def _own_gpu(local_rank: int) -> torch.device:
    """Return the GPU of a process that torchrun or accelerate launch started, the same one that accelerate takes.

    Raises:
        ConfigError: the launch has more processes on this machine than GPUs.
    """
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            f"the launch needs a GPU for each of its processes, found {found} for process {local_rank + 1} on this machine: "
            "start fewer (--nproc_per_node), name more with --gpu_id=0,1,... or use CPUs with --use_gpu=False"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
