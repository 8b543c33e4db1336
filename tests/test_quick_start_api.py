"""The Python API of runs and checkpoints."""

import json

import pytest
import torch

from recbole_hnlm.config import Config
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, run, train_and_validate
from recbole_hnlm.trainer.resumable import ResumableTraining
from recbole_hnlm.utils.errors import ConfigError


@pytest.fixture
def evaluated(monkeypatch):
    """Names of the splits that a trainer evaluates, in order."""
    splits = []
    evaluate = ResumableTraining.evaluate

    def noting(self, eval_data, *args, **kwargs):
        splits.append(eval_data._sampler.phase)
        return evaluate(self, eval_data, *args, **kwargs)

    monkeypatch.setattr(ResumableTraining, "evaluate", noting)
    return splits


def test_train_and_validate_never_evaluates_the_test_split(workdir, tiny_keys, evaluated):
    keys = {**tiny_keys, "epochs": 3}
    seen = []
    chosen = train_and_validate(Config("BPR", "tiny", config_dict=keys), callback_fn=lambda *pair: seen.append(pair))
    assert set(evaluated) == {"valid"}
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert max(score for _, score in seen) == chosen.best_valid_score
    assert chosen.test_result is None
    assert json.loads(chosen.path.read_text())["test_result"] is None
    whole = run(Config("BPR", "tiny", config_dict=keys))
    assert "test" in evaluated
    assert (chosen.best_valid_score, chosen.best_valid_result) == (whole.best_valid_score, whole.best_valid_result)
    argv = (f"--data_path={tiny_keys['data_path']}", "--use_gpu=False")
    assert evaluate_checkpoint(chosen.record["checkpoint"], argv).test_result == whole.test_result


def test_an_exception_of_the_callback_ends_the_run_and_keeps_the_checkpoint(workdir, tiny_keys):
    class PrunedError(Exception):
        pass

    def prune(epoch, _score):
        if epoch == 1:
            raise PrunedError

    config = Config("BPR", "tiny", config_dict={**tiny_keys, "epochs": 5})
    with pytest.raises(PrunedError):
        train_and_validate(config, callback_fn=prune)
    last = workdir / "saved" / f"{config['run_id']}.last.pth"
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert not list((workdir / "results").glob("*.json"))


@pytest.mark.parametrize("keys", [{"eval_args": {"split": {"RS": [0.9, 0.0, 0.1]}}}, {"eval_step": 0}])
def test_without_validation_there_is_nothing_to_choose_by(workdir, tiny_keys, keys):
    with pytest.raises(ConfigError, match="by which models are chosen"):
        train_and_validate(Config("BPR", "tiny", config_dict={**tiny_keys, **keys}))
