"""How a teacher is configured and trained; :mod:`recbole_hnlm.finetune.teacher` stores the result."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer.trainer import Trainer
from recbole.utils import InputType, get_trainer, init_seed
from tqdm.auto import tqdm

from recbole_hnlm.config import Config
from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.reading import read_keys
from recbole_hnlm.data.dataloader import HNLMTrainDataLoader
from recbole_hnlm.data.semantics import attach_vectors
from recbole_hnlm.model.building import build_model
from recbole_hnlm.trainer.checkpoint import restore_rng_state, rng_state
from recbole_hnlm.trainer.factory import get_trainer_class
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.errors import ConfigError, HNLMError
from recbole_hnlm.utils.registry import get_model_class, model_yamls
from recbole_hnlm.utils.values import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recbole.data.dataset import Dataset

__all__ = ["WORKING_MODELS", "model_keys", "teacher_config", "train_teacher"]

WORKING_MODELS = ("HNLMLightGCN", "BPR", "DGCF", "LightGCN", "NGCF", "SGL", "SpectralCF")
"""Models known to score by inner products of user and item vectors after training as a teacher; tested one by one."""

# What of the run's configuration is about the data and the machine rather than about the run's model.
_INHERITED = (
    "seed",
    "reproducibility",
    "checkpoint_dir",
    "USER_ID_FIELD",
    "ITEM_ID_FIELD",
    "LABEL_FIELD",
    "NEG_PREFIX",
    "field_separator",
    "encoding",
    "load_col",
    "benchmark_filename",
)
_NO_SEMANTICS = {"negative_route": "none", "mix_weight": 0.0, "contrast_weight": 0.0, "alignment_weight": 0.0}
# RecBole's keys outside the model's own YAML that its vectors depend on.
_RECBOLE_KEYS = ("embedding_size", "learning_rate", "train_batch_size", "require_pow")
_CHECKED_USERS = 8


def teacher_config(config: Config) -> Config:
    """Derive the configuration of a run's teacher.

    The dataset, the seed and the device are the run's, and ``embedding_size`` where the run gives it; everything else is the
    teacher model's own default, so that tuning the run's model leaves its teacher (and the LLM fine-tuned on it) as they
    are.

    Raises:
        ConfigError: ``teacher_model`` is unknown, not pairwise, or needs its own trainer.
    """
    name = config.settings.teacher_model
    model_class = get_model_class(name)
    _refuse_unfit(name, model_class)
    keys = {key: config[key] for key in _INHERITED if config[key] is not None}
    if "embedding_size" in config.external_config_dict:
        keys["embedding_size"] = config["embedding_size"]
    # RecBole has appended the dataset's name to data_path.
    keys |= {"data_path": str(Path(config["data_path"]).parent), "use_gpu": False, **_NO_SEMANTICS}
    own = Config(name, config["dataset"], None, keys)
    own["device"], own["use_gpu"] = config["device"], config["use_gpu"]
    # Plain models take one negative per positive from our loader, which the key decides.
    own["run_id"] = f"teacher-{name}"  # trainers want one; nothing is written under it
    own["negative_sampler"] = "dns" if getattr(model_class, "uses_hnlm_data", False) else "uniform"
    return own


def _refuse_unfit(name: str, model_class: type[Any]) -> None:
    works = f"known to work are {', '.join(WORKING_MODELS)}"
    if getattr(model_class, "input_type", None) is not InputType.PAIRWISE:
        raise ConfigError(f"teacher_model {name} is not trained on pairs of items; {works}")
    trainer = getattr(model_class, "trainer_class", None) or get_trainer(model_class.type, name)
    if trainer not in {Trainer, HNLMTrainer}:
        raise ConfigError(f"teacher_model {name} needs its own trainer ({trainer.__name__}); {works}")


def model_keys(config: Config) -> dict[str, Any]:
    """Return the keys and values that a teacher's vectors depend on, its epochs, data and seed aside."""
    ours = [key for key, affects in read_keys(config.model_class, config.settings).items() if affects & Affects.TRAINING]
    keys = {*_RECBOLE_KEYS, *ours, *(key for file in model_yamls(config.model_class) for key in load_yaml(file))}
    return {key: config[key] for key in sorted(keys)}


def train_teacher(
    config: Config, dataset: Dataset, epochs: int, *, show_progress: bool
) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Train a model on a training dataset for a fixed number of epochs, by the trainer that any run of it has.

    No validation data is seen: the choice of an epoch by validation would leak the validation items into the negatives that
    the LLM is fine-tuned towards. The caller's random state is left as it was.

    Symbols: U users and I items including the padding id 0, d the embedding size.

    Args:
        config: of :func:`teacher_config`.
        dataset: RecBole's training dataset (``train_data._dataset``).
        epochs: how many.
        show_progress: whether to show a bar.

    Returns:
        The vectors of users, float32 ``[U, d]``, and items ``[I, d]``, on the CPU, and the mean loss of each epoch.

    Raises:
        ConfigError: the model's scores are not inner products of user and item vectors (found before training).
        HNLMError: a loss is not finite.
    """
    view = copy.copy(dataset)
    attach_vectors(view, None)
    with _own_random_state(config), torch.enable_grad():
        loader = HNLMTrainDataLoader(config, view, shuffle=True)
        model = build_model(config, loader)
        _vectors_of(model, config)
        trainer = get_trainer_class(config.model_class, config)(config, model)
        losses = []
        with tqdm(total=epochs, desc=f"teacher {config['model']}", unit="epoch", disable=not show_progress) as bar:
            for epoch in range(epochs):
                try:
                    parts = trainer._train_epoch(loader, epoch)
                except HNLMError as error:
                    # The trainer's remedies are the run's keys, which a teacher does not read.
                    raise HNLMError(
                        f"the training loss of teacher {config['model']} is not finite in epoch {epoch}: lower "
                        f"teacher_epochs or choose another teacher_model; {', '.join(WORKING_MODELS)} are known to work"
                    ) from error
                losses.append((sum(parts) if isinstance(parts, tuple) else parts) / len(loader))
                bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
                bar.update()
        trainer.tensorboard.close()
        users, items = _vectors_of(model, config)
    return users.detach().float().cpu(), items.detach().float().cpu(), losses


@torch.no_grad()
def _vectors_of(model: Any, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vectors that the model scores with, checked against its scores of a few users."""
    model.eval()
    if hasattr(model, "message_dropout"):
        # RecBole's NGCF drops messages when it scores, too.
        model.message_dropout = 0.0
    n_users = min(_CHECKED_USERS, model.n_users - 1)
    ids = torch.arange(1, n_users + 1, device=config["device"])
    try:
        scores = model.full_sort_predict(Interaction({config["USER_ID_FIELD"]: ids})).view(n_users, -1)
        users, items = _named_vectors(model)
        fits = torch.allclose(users[ids] @ items.t(), scores, rtol=1e-3, atol=1e-4)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        raise ConfigError(
            f"teacher_model {config['model']} does not score by inner products of user and item vectors; known to work are "
            f"{', '.join(WORKING_MODELS)}"
        )
    return users, items


def _named_vectors(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the vectors behind the scores just made: ours name them, RecBole's graph models keep them, others have tables."""
    if hasattr(model, "propagate_for_scoring"):
        return model.propagate_for_scoring()  # of length 1 where the model ranks by cosine
    if getattr(model, "restore_user_e", None) is not None:
        return model.restore_user_e, model.restore_item_e
    return model.user_embedding.weight, model.item_embedding.weight


@contextmanager
def _own_random_state(config: Config) -> Iterator[None]:
    """Seed the global generators for the block and give them back as they were."""
    state = rng_state()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    init_seed(config["seed"], config["reproducibility"])
    try:
        yield
    finally:
        restore_rng_state(state)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags
