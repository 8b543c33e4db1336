"""Keys of models, RecBole's above all, that accept a few words, or lists that have to fit each other.

RecBole 1.2.1 finds such a value only while it builds or trains the model, by an assertion or an unset variable, or takes it
for another one silently (``accum`` of GCMC, ``type`` of SGL).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole.utils import InputType, ModelType

from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_model_keys", "lacks_negatives"]

_ACTIVATIONS = ("sigmoid", "tanh", "relu", "leakyrelu", "dice", "none")
# From the constructors in recbole/model/general_recommender, and of DirectAU here; a key of one name means the same in each.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "accum": ("stack", "sum"),
    "ae_act_func": _ACTIVATIONS,
    "aggregator": ("mean", "user_attention", "self_attention"),
    "algorithm": ("prod", "concat"),
    "encoder": ("LightGCN", "MF"),
    "hid_activation": ("sigmoid", "relu", "tanh"),
    "inter_matrix_type": ("01", "rating"),
    "knn_method": ("user", "item"),
    "loss_type": ("MSE", "BCE"),
    "mean_type": ("x0", "eps"),
    "mlp_act_func": _ACTIVATIONS,
    "neigh_info_method": ("random", "knn", "louvain"),
    "noise_schedule": ("linear", "linear-var", "cosine", "binomial"),
    "order": (1, 2),
    "out_activation": ("sigmoid", "relu"),
    "train_method": ("no_pretrain", "after_pretrain"),
    "train_stage": ("actor_pretrain", "critic_pretrain", "finetune"),
    "type": ("ED", "ND", "RW"),
}
# RecBole builds their training batches of whole users, without negatives (recbole.data.utils.get_dataloader).
_OF_WHOLE_USERS = frozenset(
    {"MultiDAE", "MultiVAE", "MacridVAE", "CDAE", "ENMF", "RaCT", "RecVAE", "DiffRec", "LDiffRec", "NCEPLRec"}
)


def check_model_keys(model: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Check the words that a model's keys take, and that its lists fit each other.

    Args:
        model: name of the model.
        config: the configuration, lists in their normal form.
        defaults: the shipped values, which say what keys the model has.
    """
    problems = []
    for key, choices in _CHOICES.items():
        value = config.get(key)
        words = [str(choice) for choice in choices]
        if defaults.get(key) in choices and str(value) not in words:
            problems.append(f"{key}: expected one of {', '.join(words)}, got {shown(value)}")
    for key, default in defaults.items():
        # Weights of the terms of a loss, one each, such as reg_weights.
        weights = isinstance(default, list) and default and all(isinstance(part, float) for part in default)
        if weights and isinstance(config.get(key), list) and len(config[key]) != len(default):
            problems.append(f"{key}: expected {len(default)} numbers such as {shown(default)}, got {shown(config[key])}")
    return [*problems, *_shape_problems(model, config)]


def _shape_problems(model: str, config: Mapping[str, Any]) -> list[str]:
    def lengths(*keys: str) -> list[int]:
        return [len(config[key]) if isinstance(config.get(key), list) else 0 for key in keys]

    if model == "ConvNCF":
        channels, kernels, strides = lengths("cnn_channels", "cnn_kernels", "cnn_strides")
        if not kernels == strides == channels - 1:
            return [
                "cnn_kernels and cnn_strides: expected a number for each layer, one fewer than cnn_channels has; found "
                f"{kernels} and {strides} for {channels} channels"
            ]
    user, item = config.get("user_hidden_size_list"), config.get("item_hidden_size_list")
    if model == "DMF" and isinstance(user, list) and isinstance(item, list) and user and item and user[-1] != item[-1]:
        return [f"user_hidden_size_list and item_hidden_size_list: expected the same last size, got {user[-1]} and {item[-1]}"]
    factors, size = config.get("n_factors"), config.get("embedding_size")
    if model == "DGCF" and isinstance(factors, int) and isinstance(size, int) and factors > 0 and size % factors:
        return [f"n_factors: expected a divisor of embedding_size {size}, got {factors}"]
    return []


def lacks_negatives(model_class: Any, config: Mapping[str, Any], inter_columns: Mapping[str, str]) -> list[str]:
    """Refuse a training without negatives of a model whose loss reads negatives, or labels that are not there.

    Args:
        model_class: the model.
        config: the configuration, of checked form.
        inter_columns: the loaded columns of the interactions.
    """
    sampling = config.get("train_neg_sample_args")
    distribution = sampling.get("distribution") if isinstance(sampling, dict) else None
    if str(distribution).lower() != "none" or getattr(model_class, "uses_hnlm_data", False):
        return []
    if model_class.type != ModelType.GENERAL or model_class.__name__ in _OF_WHOLE_USERS:
        return []
    name = model_class.__name__
    if model_class.input_type == InputType.PAIRWISE:
        return [f"train_neg_sample_args: the loss of {name} compares each item with a negative one, so it cannot be None"]
    label = str(config.get("LABEL_FIELD"))
    if config.get("threshold") is None and label not in inter_columns:
        return [
            f"train_neg_sample_args: without negatives {name} learns from labels: load a column {label} (LABEL_FIELD), make "
            "labels of ratings with --threshold={'rating':3}, or leave the key out"
        ]
    return []
