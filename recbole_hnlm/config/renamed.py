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
_INTERVAL = "such as {0}_inter_num_interval=[5,inf)"
_VALUE = "val_interval, such as --val_interval={'rating':'"
# RecBole before 1.0 and before 1.1: its old documentation and the "deprecated" warnings of its code.
_RECBOLES = {
    "eval_setting": "eval_args, such as --eval_args={'order':'RO','split':{'RS':[0.8,0.1,0.1]},'mode':'full'}",
    "split_ratio": "eval_args split, such as --eval_args={'split':{'RS':[0.8,0.1,0.1]}}",
    "leave_one_out_num": "eval_args split, such as --eval_args={'split':{'LS':'valid_and_test'}}",
    "group_by_user": "eval_args group_by, such as --eval_args={'group_by':'user'}",
    "real_time_process": "nothing: negatives are always drawn while training",
    "training_neg_sample_num": "train_neg_sample_args, such as --train_neg_sample_args={'sample_num':1}",
    "training_neg_sample_distribution": "train_neg_sample_args, such as --train_neg_sample_args={'distribution':'uniform'}",
    "neg_sampling": "train_neg_sample_args, such as --train_neg_sample_args={'distribution':'uniform','sample_num':1}",
    "min_user_inter_num": "user_inter_num_interval, " + _INTERVAL.format("user"),
    "max_user_inter_num": "user_inter_num_interval, such as user_inter_num_interval=[0,100]",
    "min_item_inter_num": "item_inter_num_interval, " + _INTERVAL.format("item"),
    "max_item_inter_num": "item_inter_num_interval, such as item_inter_num_interval=[0,100]",
    "lowest_val": f"{_VALUE}[3,inf)'}}",
    "highest_val": f"{_VALUE}(-inf,5]'}}",
    "equal_val": f"{_VALUE}[5,5]'}}",
    "not_equal_val": f"{_VALUE}(-inf,0);(0,inf)'}}",
    "drop_filter_field": "unused_col, such as --unused_col={'inter':['rating']}",
    "drop_preload_weight": "unused_col",
    "fields_in_same_space": "alias_of_user_id and alias_of_item_id",
    "multi_gpus": "nproc, such as --nproc=2",
}
RENAMED = {**_OURS, **_RECBOLES}
"""Old key to what is said of it after "it is now called"."""
