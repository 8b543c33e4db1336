import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune import teacher as teacher_module
from recbole_hnlm.finetune.teacher import ensure_teacher
from recbole_hnlm.finetune.teacher_training import WORKING_MODELS, model_keys, teacher_config
from recbole_hnlm.finetune.tensor_files import TensorArtifact
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.model.hnlmsgl import HNLMSGL
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, HNLMError
from recbole_hnlm.utils.files import exclusive_writer, write_manifest

pytestmark = pytest.mark.usefixtures("workdir")


@pytest.fixture
def make_config(tiny_keys):
    def make(model="HNLMLightGCN", dataset="tiny", **keys):
        return Config(model, dataset, None, {**tiny_keys, "teacher_epochs": 2, **keys}, strict=False)

    return make


@pytest.fixture
def train(make_config):
    """RecBole's training dataset of ``tiny``."""
    return load_data(make_config()).train._dataset


@pytest.fixture
def trainings(monkeypatch):
    """Count the trainings."""
    calls, original = [], teacher_module.train_teacher
    monkeypatch.setattr(teacher_module, "train_teacher", lambda *a, **k: calls.append(a) or original(*a, **k))
    return calls


def same(first, second):
    return np.array_equal(first.user_vectors, second.user_vectors) and np.array_equal(first.item_vectors, second.item_vectors)


# --- what it learns and gives ------------------------------------------------------------------------------------------------


def test_ranks_training_items_better_than_popularity(make_config, train, tmp_path):
    teacher = ensure_teacher(make_config(teacher_epochs=30, embedding_size=16), train, tmp_path)
    training = TrainingInteractions.from_dataset(train)
    held = np.zeros((training.n_users, training.n_items), dtype=bool)
    held[training.users, training.items] = True
    popularity = np.tile(np.bincount(training.items, minlength=training.n_items), (training.n_users, 1))

    def auc(scores):
        """Share of (held, not held) pairs of items in the right order, mean over users."""
        order = scores[:, :, None] - scores[:, None, :]
        return np.mean([((order[u] > 0) + 0.5 * (order[u] == 0))[held[u]][:, ~held[u]][:, 1:].mean() for u in range(1, 42)])

    assert auc(popularity.astype(float)) < 0.65
    assert auc(teacher.scores(np.arange(training.n_users))) > 0.8
    assert (teacher.model, teacher.user_vectors.shape, teacher.item_vectors.shape) == ("HNLMLightGCN", (42, 16), (31, 16))
    assert teacher.user_vectors.dtype == teacher.item_vectors.dtype == np.float32
    assert not teacher.user_vectors[0].any()
    assert not teacher.item_vectors[0].any()
    assert len(teacher.digest) == 16
    manifest = json.loads((tmp_path / "teacher" / teacher.digest / "manifest.json").read_text())
    assert len(manifest["loss"]) == 30
    assert manifest["loss"][-1] < manifest["loss"][0]
    assert manifest["made_from"]["keys"]["negative_sampler"] == "dns"


def test_scores_are_inner_products():
    teacher = Teacher(np.array([[0, 0], [1, 2]], np.float32), np.array([[0, 0], [3, 0], [0, 4]], np.float32), "d", "m")
    assert teacher.scores([1, 1]).tolist() == [[0, 3, 8]] * 2


@pytest.mark.parametrize("name", WORKING_MODELS)
def test_working_models_work(name, make_config, train, tmp_path, monkeypatch):
    def in_small_batches(config):
        own = teacher_config(config)
        own["train_batch_size"] = 128  # DGCF cannot sample from fewer batches
        return own

    monkeypatch.setattr(teacher_module, "teacher_config", in_small_batches)
    teacher = ensure_teacher(make_config(teacher_model=name, teacher_epochs=8), train, tmp_path)
    assert teacher.model == name
    assert len(teacher.user_vectors) == 42
    assert np.ptp(teacher.scores([1])[0, 1:]) > 0
    manifest = json.loads((tmp_path / "teacher" / teacher.digest / "manifest.json").read_text())
    assert manifest["loss"][-1] < manifest["loss"][0]


def test_every_epoch_is_announced_to_the_model(make_config, train, tmp_path, monkeypatch):
    epochs, views, original = [], [], HNLMSGL.start_epoch

    def start_epoch(self, epoch):
        original(self, epoch)
        epochs.append(epoch)
        views.append(self._views[0][0].as_torch().to_dense())

    monkeypatch.setattr(HNLMSGL, "start_epoch", start_epoch)
    ensure_teacher(make_config(teacher_model="HNLMSGL", teacher_epochs=3), train, tmp_path)
    assert epochs == [0, 1, 2]
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])
    assert not list(tmp_path.rglob("*.pth"))


# --- what it depends on ------------------------------------------------------------------------------------------------------


def write_split(folder, valid_items, test_items):
    """Files of three splits over the same users and items; the training part is always the same."""
    draw = random.Random(3)
    train = {f"u{user}": [f"i{item}" for item in draw.sample(range(20), 8)] for user in range(15)}
    train["u0"] = [f"i{item}" for item in range(19)]  # every item is in training, and nobody holds them all
    train["u1"] = ["i19", *train["u1"]]
    parts = {
        "train": train,
        "valid": dict.fromkeys(list(train)[1:], valid_items),
        "test": dict.fromkeys(list(train)[1:], test_items),
    }
    (folder / "cut").mkdir(parents=True)
    for part, histories in parts.items():
        rows = [f"{user}\t{item}" for user, items in histories.items() for item in items]
        (folder / "cut" / f"cut.{part}.inter").write_text("\n".join(["user_id:token\titem_id:token", *rows]) + "\n")
    return str(folder)


def test_held_out_interactions_do_not_change_it(make_config, tmp_path):
    files = {"benchmark_filename": ["train", "valid", "test"], "load_col": {"inter": ["user_id", "item_id"]}}
    teachers, sizes = [], []
    for name, valid, test in (("a", ["i1", "i2"], ["i3"]), ("b", ["i17"], ["i11", "i12", "i13"])):
        data_path = write_split(tmp_path / name, valid, test)
        config = make_config(dataset="cut", data_path=data_path, **files)
        data = load_data(config)
        sizes.append((len(data.valid._dataset), len(data.test._dataset)))
        teachers.append(ensure_teacher(config, data.train._dataset, tmp_path / name))
    assert sizes[0] != sizes[1]
    assert teachers[0].digest == teachers[1].digest
    assert same(*teachers)
    # The test can fail: another training interaction changes both.
    (tmp_path / "b" / "cut" / "cut.train.inter").open("a").write("u1\ti1\nu1\ti2\nu1\ti3\n")
    data = load_data(config)
    other = ensure_teacher(config, data.train._dataset, tmp_path / "b")
    assert other.digest != teachers[1].digest
    assert not same(other, teachers[1])


def test_is_reused_and_identical(make_config, train, tmp_path, trainings):
    first = ensure_teacher(make_config(), train, tmp_path)
    assert same(first, ensure_teacher(make_config(), train, tmp_path))
    assert len(trainings) == 1
    shutil.rmtree(tmp_path / "teacher")
    again = ensure_teacher(make_config(), train, tmp_path)
    assert len(trainings) == 2
    assert same(first, again)


def test_the_runs_own_training_keys_leave_it_as_it_is(make_config, train, tmp_path, trainings):
    first = ensure_teacher(make_config(), train, tmp_path)
    finetuned = {
        "learning_rate": 0.1,
        "train_batch_size": 7,
        "num_candidates": 3,
        "negative_sampler": "uniform",
        "mix_weight": 0.5,
    }
    assert ensure_teacher(make_config(**finetuned, n_layers=1, epochs=9), train, tmp_path).digest == first.digest
    assert ensure_teacher(make_config("BPR"), train, tmp_path).digest == first.digest
    assert len(trainings) == 1
    for change in ({"embedding_size": 8}, {"teacher_epochs": 3}, {"teacher_model": "BPR"}, {"seed": 5}):
        assert ensure_teacher(make_config(**change), train, tmp_path).digest != first.digest, change
    assert len(trainings) == 5


def test_config_of_a_teacher_is_of_its_own_model(make_config):
    run = make_config("BPR", embedding_size=8, seed=9, learning_rate=0.5, show_progress=False)
    own = teacher_config(run)
    assert own.model_class is HNLMLightGCN
    assert (own["seed"], own["device"], own["embedding_size"]) == (9, run["device"], 8)
    assert (own["learning_rate"], own["n_layers"], own["negative_sampler"]) == (0.002, 2, "dns")
    assert not own.settings.uses_semantics
    assert model_keys(own)["reg_weight"] == own["reg_weight"]
    plain = teacher_config(make_config(teacher_model="LightGCN"))
    assert plain["negative_sampler"] == "uniform"


def global_state():
    return random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2], torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("name", ["HNLMLightGCN", "SGL"])
def test_the_callers_random_state_is_untouched(name, make_config, train, tmp_path):
    config = make_config(teacher_model=name)
    torch.backends.cudnn.benchmark, before_flags = True, torch.backends.cudnn.benchmark
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    before = global_state()
    with torch.no_grad():  # the caller's gradient mode does not stop the training either
        first = ensure_teacher(config, train, tmp_path)
    assert global_state() == before
    assert torch.backends.cudnn.benchmark is True
    torch.backends.cudnn.benchmark = before_flags
    torch.manual_seed(99)  # nor does the caller's state change the teacher
    shutil.rmtree(tmp_path / "teacher")
    assert same(first, ensure_teacher(config, train, tmp_path))


def test_vectors_of_a_run_do_not_reach_it(make_config, train, tmp_path):
    first = ensure_teacher(make_config(), train, tmp_path / "a")
    train.semantic_vectors = object()
    columns = set(train.inter_feat.interaction)
    assert same(first, ensure_teacher(make_config(), train, tmp_path / "b"))
    assert set(train.inter_feat.interaction) == columns


# --- what goes wrong ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LightGNC", "nearest is LightGCN"),
        ("EASE", "teacher_model EASE is not trained on pairs of items; known to work are HNLMLightGCN, BPR"),
        ("NCL", r"teacher_model NCL needs its own trainer \(NCLTrainer\); known to work"),
        ("MultiVAE", "teacher_model MultiVAE does not score by inner products of user and item vectors; known to work"),
        ("SimpleX", "teacher_model SimpleX does not score by inner products"),
        ("ConvNCF", "teacher_model ConvNCF "),
    ],
)
def test_unfit_models_are_refused_before_training(name, message, make_config, train, tmp_path):
    with pytest.raises(ConfigError, match=message):
        ensure_teacher(make_config(teacher_model=name, teacher_epochs=10**6), train, tmp_path)
    assert not list(tmp_path.glob("teacher/*/*"))


def test_a_loss_that_is_no_number_stops(make_config, train, tmp_path, monkeypatch):
    original = HNLMLightGCN.calculate_loss
    monkeypatch.setattr(
        HNLMLightGCN, "calculate_loss", lambda self, batch: tuple(p * float("nan") for p in original(self, batch))
    )
    with pytest.raises(
        HNLMError, match="the training loss of teacher HNLMLightGCN is not finite in epoch 0: lower teacher_epochs"
    ):
        ensure_teacher(make_config(), train, tmp_path)
    assert not list(tmp_path.glob("teacher/*/*"))


def test_damage_and_mismatch_are_one_line(make_config, train, tmp_path):
    config = make_config()
    teacher = ensure_teacher(config, train, tmp_path)
    place = tmp_path / "teacher" / teacher.digest
    vectors, manifest = (place / "vectors.safetensors").read_bytes(), json.loads((place / "manifest.json").read_text())
    del manifest["manifest_sha256"]

    def refused(match):
        with pytest.raises(ArtifactError, match=match) as error:
            ensure_teacher(config, train, tmp_path)
        assert "\n" not in str(error.value)
        assert f"delete {place}" in str(error.value)

    (place / "vectors.safetensors").write_bytes(vectors[:-1] + bytes([vectors[-1] ^ 1]))
    refused("is corrupt or was edited: its SHA-256")
    (place / "vectors.safetensors").unlink()
    refused("cannot read .*No such file")
    (place / "vectors.safetensors").write_bytes(vectors)
    write_manifest(place / "manifest.json", {**manifest, "digest": "0" * 16})
    refused(f"is of teacher 0000000000000000, expected {teacher.digest}")
    write_manifest(place / "manifest.json", {**manifest, "format": 99})
    refused(r"manifest\.json: format is 99")
    (place / "manifest.json").write_text("{")
    refused("is corrupt")
    write_manifest(place / "manifest.json", manifest)
    assert same(teacher, ensure_teacher(config, train, tmp_path))
    # Whole by every digest, and no numbers.
    stored = TensorArtifact(place / "vectors.safetensors", place / "manifest.json", "teacher", "")
    for name in ("user_vectors", "item_vectors"):
        for number in (np.nan, np.inf, -np.inf):
            tensors = {"user_vectors": teacher.user_vectors, "item_vectors": teacher.item_vectors}
            tensors = {key: torch.tensor(table) for key, table in tensors.items()}
            tensors[name][3, 1] = number
            stored.write_tensors(tensors, {key: manifest[key] for key in ("digest", "made_from", "shapes")})
            refused(rf"vectors\.safetensors: {name} holds numbers that are not finite")


def test_stopped_between_the_files_it_is_no_teacher(make_config, train, tmp_path, trainings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("recbole_hnlm.utils.files.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ensure_teacher(make_config(), train, tmp_path)
    assert list(tmp_path.glob("teacher/*/vectors.safetensors"))
    ensure_teacher(make_config(), train, tmp_path)
    assert len(trainings) == 2


def test_killed_in_training_it_leaves_nothing_behind(make_config, train, tmp_path, tiny_keys):
    code = (
        "import sys, json; from pathlib import Path; from recbole_hnlm.config import Config; "
        "from recbole_hnlm.data.loading import load_data; from recbole_hnlm.finetune.teacher import ensure_teacher; "
        "keys = json.loads(sys.argv[1]); config = Config('HNLMLightGCN', 'tiny', None, keys, strict=False); "
        "ensure_teacher(config, load_data(config).train._dataset, Path(sys.argv[2]))"
    )
    keys = json.dumps({**tiny_keys, "teacher_epochs": 10**7})
    child = subprocess.Popen([sys.executable, "-c", code, keys, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not (tmp_path / "teacher" / ".lock").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.1)
    assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not list(tmp_path.glob("teacher/*/*"))
    # The lock died with its holder: this does not wait.
    assert ensure_teacher(make_config(), train, tmp_path).model == "HNLMLightGCN"


def test_a_second_process_waits_and_takes_the_firsts(make_config, train, tmp_path, trainings, caplog):
    ready = ensure_teacher(make_config(), train, tmp_path / "elsewhere")
    found = []
    with exclusive_writer(tmp_path / "teacher"):
        waiting = threading.Thread(target=lambda: found.append(ensure_teacher(make_config(), train, tmp_path)))
        waiting.start()
        deadline = time.monotonic() + 60
        while "another process" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.copytree(tmp_path / "elsewhere" / "teacher" / ready.digest, tmp_path / "teacher" / ready.digest)
        assert not found
    waiting.join(timeout=60)
    assert same(found[0], ready)
    assert len(trainings) == 1
