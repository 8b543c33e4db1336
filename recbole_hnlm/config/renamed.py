"""Keys of earlier versions, RecBole's and ours, and what they are called now."""

from __future__ import annotations

__all__ = ["RENAMED"]

_FINETUNE = (
    "text from template pooling layers soft_tokens max_length user_tokens title_tokens item_tokens batch_tokens share_prefix"
)
_TUNE = (
    "quantization negatives steps batch_size accumulation learning_rate projection_learning_rate temperature contrast_weight "
    "gradient_checkpointing save_steps seed heldout_users"
)
_OURS = {
    **{f"tuned_{name}": f"finetune_{name}" for name in _FINETUNE.split()},
    **{f"tune_{name}": f"finetune_{name}" for name in _TUNE.split()},
    "adapter_hidden_size": "projector_hidden_size",
    "adapter_learning_rate": "projector_learning_rate",
}
_INTERVAL = "user_inter_num_interval, such as --user_inter_num_interval="
_VALUE = "val_interval, such as --val_interval={'rating':'"
_SAMPLING = "train_neg_sample_args, such as --train_neg_sample_args={'distribution':'uniform','sample_num':1}"
# RecBole before 1.0 and before 1.1: its old documentation and the "deprecated" warnings of its code.
_RECBOLES = {
    "eval_setting": "eval_args, such as --eval_args={'order':'RO','split':{'RS':[0.8,0.1,0.1]},'mode':'full'}",
    "split_ratio": "eval_args split, such as --eval_args={'split':{'RS':[0.8,0.1,0.1]}}",
    "leave_one_out_num": "eval_args split, such as --eval_args={'split':{'LS':'valid_and_test'}}",
    "group_by_user": "eval_args group_by, such as --eval_args={'group_by':'user'}",
    "training_neg_sample_num": _SAMPLING,
    "training_neg_sample_distribution": _SAMPLING,
    "neg_sampling": _SAMPLING,
    "min_user_inter_num": f"{_INTERVAL}[5,inf)",
    "max_user_inter_num": f"{_INTERVAL}[0,100]",
    "min_item_inter_num": f"{_INTERVAL}[5,inf)".replace("user", "item"),
    "max_item_inter_num": f"{_INTERVAL}[0,100]".replace("user", "item"),
    "lowest_val": f"{_VALUE}[3,inf)'}}",
    "highest_val": f"{_VALUE}(-inf,5]'}}",
    "equal_val": f"{_VALUE}[5,5]'}}",
    "not_equal_val": f"{_VALUE}(-inf,0);(0,inf)'}}",
    "drop_filter_field": "unused_col, such as --unused_col={'inter':['rating']}",
    "drop_preload_weight": "unused_col, such as --unused_col={'item':['vector']}",
    "fields_in_same_space": "alias_of_user_id and alias_of_item_id, such as --alias_of_item_id=[also_bought]",
    "multi_gpus": "nproc, such as --nproc=2",
}
_REMOVED = {"real_time_process": "RecBole has dropped it: negatives are always drawn while training, so leave it out"}
RENAMED = {
    **{old: f"it is now called {new}" for old, new in _OURS.items()},
    **{old: f"RecBole 1.2 has {new}" for old, new in _RECBOLES.items()},
    **_REMOVED,
}
"""Old key to what is said of it."""
