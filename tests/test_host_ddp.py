"""Two processes on CPUs, joined by Gloo."""

import json

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from recbole_hnlm.quick_start.launch import LaunchOptions, RunRequest, launch
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, run
from recbole_hnlm.trainer.factory import get_trainer_class
from recbole_hnlm.utils.errors import ConfigError


def _train_and_report(rank, request, keys, folder):
    """Runs in each process: trains, then writes what this rank saw."""
    torch.set_num_threads(1)
    config = request.config(**keys, local_rank=rank)
    weights = []

    class Watched(get_trainer_class(config.model_class, config)):
        def evaluate(self, *args, **kwargs):
            result = super().evaluate(*args, **kwargs)
            weights.append(float(sum(parameter.double().sum() for parameter in self.model.parameters())))
            return result

    config.model_class.trainer_class = Watched
    result = run(config, run_id="both")
    torch.distributed.destroy_process_group()
    record = {name: result.record[name] for name in ("best_valid_result", "test_result")}
    (folder / f"rank{rank}.json").write_text(json.dumps({**record, "weights": weights}, default=float))


@pytest.mark.parametrize(
    ("model", "own"), [("LightGCN", {}), ("HNLMLightGCN", {"negative_route": "none", "alignment_weight": 0.0})]
)
def test_two_ranks_agree_and_evaluate_like_one_process(workdir, tiny_keys, model, own):
    request = RunRequest(
        model, "tiny", config_dict={**tiny_keys, **own, "epochs": 2, "metrics": ["Recall", "MRR", "ItemCoverage"]}
    )
    spawn(_train_and_report, args=(request, LaunchOptions(nproc=2).keys(), workdir), nprocs=2)
    first, second = (json.loads((workdir / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert sorted(path.name for path in (workdir / "saved").iterdir()) == ["both.last.pth", "both.pth"]
    assert [path.name for path in (workdir / "results").iterdir()] == ["both.json"]
    assert [path.name for path in (workdir / "log").iterdir()] == ["both.log"]
    # 41 users do not divide by 2: a repeated user would show in the mean.
    alone = evaluate_checkpoint("saved/both.pth", (f"--data_path={tiny_keys['data_path']}", "--use_gpu=False"))
    assert alone.test_result == first["test_result"]
    assert alone.best_valid_result == first["best_valid_result"]


def test_an_error_in_the_ranks_is_raised_once_in_the_parent(workdir, tiny_keys):
    request = RunRequest("BPR", "tiny", config_dict={**tiny_keys, "topk": [31], "valid_metric": "MRR@31"})
    with pytest.raises(ConfigError, match="topk 31 is beyond the 30 items"):
        launch(request, LaunchOptions(nproc=2))
    assert not list((workdir / "results").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LaunchOptions(nproc=2, world_size=1), "do not fit"),
        (LaunchOptions(nproc=0), "do not fit"),
        (LaunchOptions(nproc=1, world_size=2), "need the same --port"),
        (LaunchOptions(nproc=1, world_size=2, group_offset=2, port=1), "do not fit"),
        (LaunchOptions(group_offset=-1), "do not fit"),
        (LaunchOptions(group_offset=1), "do not fit"),
        (LaunchOptions(world_size=0), "do not fit"),
        (LaunchOptions(world_size=-3), "do not fit"),
        (LaunchOptions(nproc=2, port=99_999), "port: expected a number from 1 to 65535, got 99999"),
        (LaunchOptions(nproc=2, port=0), "port: expected a number from 1 to 65535, got 0"),
        (LaunchOptions(nproc=2, ip=" "), "ip is empty, expected the address of the first machine"),
    ],
)
def test_launcher_flags_that_do_not_fit_are_refused(options, message):
    assert not options.is_single
    with pytest.raises(ConfigError, match=message):
        options.keys()
