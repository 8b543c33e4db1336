"""The three stages: what they make, what they skip, what survives, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stages_kit import NoBackend, ScriptedBackend, ScriptedEncoder, block_pairs, make_context, vector_of, write_items

from recbole_hnlm.cli.show import show_user
from recbole_hnlm.semantics.pipeline import build_semantics, run_stage, stages_needed
from recbole_hnlm.semantics.user_story import nearest_rows
from recbole_hnlm.stages.negatives import is_declined, title_words
from recbole_hnlm.stages.profile import item_prompts, user_prompts
from recbole_hnlm.stages.replies import reply_artifact
from recbole_hnlm.utils.errors import ArtifactError, BackendError, ConfigError, DataError


def build(context, backend=None, encoder=None):
    backend, encoder = backend or ScriptedBackend(), encoder or ScriptedEncoder()
    return *build_semantics(context, backend=backend, encoder=encoder), backend, encoder


def test_each_training_pair_gets_the_vector_of_its_own_negative(tmp_path):
    context = make_context(tmp_path, [*block_pairs(), ("u0", "i0")], semantic_negatives_per_user=2)
    semantics, reports, backend, _ = build(context)
    replies = {
        (row["user_id"], row["item_id"]): row["hard_negative_item"] for row in reply_artifact(context, "negatives").read()
    }
    assert set(replies) == set(context.chosen_pairs)
    assert len(replies) == 12
    training = context.training
    for row, (user, item) in enumerate(zip(training.users, training.items, strict=True)):
        pair = (training.user_tokens[user], training.item_tokens[item])
        place = semantics.pair_rows[row]
        assert (place >= 0) == (pair in replies)
        if place >= 0:
            assert np.allclose(semantics.pair_vectors[place], vector_of(replies[pair]), atol=1e-3)
    assert [report.name for report in reports] == ["profile", "negatives", "encode"]
    assert [report.total for report in reports] == [14, 12, 20]
    assert [report.generated for report in reports] == [14, 12, 20]
    assert len(backend.asked) == 26
    assert semantics.item_mask.tolist() == [False, *[True] * 8]
    assert np.allclose(semantics.item_vectors[3], vector_of(f"Title of {training.item_tokens[3]}. Things"), atol=1e-3)
    assert semantics.user_vectors is None


def test_only_items_whose_profile_is_read_are_profiled(tmp_path):
    context = make_context(tmp_path, block_pairs(), profile_items="needed")
    chosen = {item for _, item in context.chosen_pairs}
    assert 0 < len(chosen) < 8
    assert set(item_prompts(context)) == chosen
    _, reports, *_ = build(context)
    assert [report.total for report in reports] == [len(chosen) + 6, 6, 14]
    assert reports[1].missing == 0
    settings = context.settings.model_copy(update={"alignment_source": "profile"})
    assert len(item_prompts(replace(context, settings=settings))) == 8


def test_a_second_run_asks_and_encodes_nothing(tmp_path):
    context = make_context(tmp_path, block_pairs())
    first, *_ = build(context)
    encoder = ScriptedEncoder()
    second, reports, *_ = build(replace(context), NoBackend(), encoder)
    assert encoder.texts == []
    assert [(report.reused, report.generated) for report in reports] == [(14, 0), (6, 0), (14, 0)]
    assert (first.pair_rows == second.pair_rows).all()
    assert (first.pair_vectors == second.pair_vectors).all()


def tokens_of(reports):
    return [(report.prompt_tokens, report.completion_tokens, report.tokens_of_all) for report in reports]


def test_tokens_are_those_of_the_run_and_those_that_made_all_replies(tmp_path):
    context = make_context(tmp_path, block_pairs())
    _, reports, *_ = build(context)
    assert tokens_of(reports) == [(140, 42, 182), (60, 18, 78), (0, 0, 0)]
    assert str(reports[0]).endswith(f", 140 tokens in, 42 out, {reports[0].seconds:.1f} s")
    _, again, *_ = build(context, NoBackend())
    assert tokens_of(again) == [(0, 0, 182), (0, 0, 78), (0, 0, 0)]
    assert "tokens" not in str(again[0])


def test_what_an_earlier_run_or_a_silent_server_spent_is_unknown_and_never_guessed(tmp_path):
    _, reports, *_ = build(make_context(tmp_path / "silent", block_pairs()), ScriptedBackend(uncounted=1))
    assert tokens_of(reports) == [(None, None, None), (60, 18, 78), (0, 0, 0)]
    context = make_context(tmp_path, block_pairs())
    build(context)
    reply_artifact(context, "negatives").path.unlink()
    _, again, *_ = build(context, NoBackend())
    assert tokens_of(again) == [(0, 0, 182), (0, 0, None), (0, 0, 0)]


def test_replies_that_were_asked_for_again_are_added_to_what_the_others_cost(tmp_path):
    context = make_context(tmp_path, block_pairs(), max_missing_share=0.9, llm_reply_attempts=2)
    flawed = ScriptedBackend(garbage=["Title of i3"])
    run_stage(context, "profile", backend=flawed)
    asked = len(flawed.asked)
    report = run_stage(context, "profile", backend=(mended := ScriptedBackend()))
    assert report.prompt_tokens == 10 * len(mended.asked) > 0
    assert report.tokens_of_all == 13 * (asked + len(mended.asked))


def test_a_changed_title_asks_again_for_that_item_and_who_quotes_it_alone(tmp_path):
    context = make_context(tmp_path, block_pairs(per_user=3))
    build(context)
    write_items(tmp_path / "toy", {f"i{n}": "Renamed" if n == 2 else f"Title of i{n}" for n in range(8)})
    _, _, backend, encoder = build(replace(context))
    quoting = {f"u{n}" for n in (0, 1, 2)}  # users with i2 in training
    profiles = [prompt for prompt in backend.asked if "chosen_item" not in prompt.user]
    negatives = [prompt for prompt in backend.asked if "chosen_item" in prompt.user]
    assert len(profiles) == 1 + len(quoting)
    assert all("Renamed" in prompt.user for prompt in profiles)
    changed = {pair for pair in context.chosen_pairs if pair[0] in quoting or pair[1] == "i2"}
    assert len(negatives) == len(changed)
    assert any(text == "Renamed. Things" for text in encoder.texts)


def test_another_split_and_more_negatives_reuse_what_is_known(tmp_path):
    context = make_context(tmp_path, block_pairs())
    build(context)
    more = make_context(tmp_path, block_pairs(), semantic_negatives_per_user=3)
    _, reports, *_ = build(more)
    assert (reports[1].reused, reports[1].generated) == (6, 12)
    other = make_context(tmp_path, block_pairs(per_user=5))
    assert other.split_artifacts != context.split_artifacts
    _, reports, *_ = build(other)
    assert reports[0].reused >= 8  # every item's profile


def test_manifests_say_what_an_artefact_was_made_from(tmp_path):
    context = make_context(tmp_path, block_pairs())
    build(context)
    manifest = reply_artifact(context, "negatives").manifest()
    assert json.loads(manifest["model"]) == ["scripted", "scripted", "1", "float32"]
    assert manifest["counts"] == {"prompts": 6, "replies": 6, "missing": 0}
    assert manifest["split_fingerprint"] == context.training.split_fingerprint
    assert manifest["settings"]["profile_max_words"] == context.settings.profile_max_words
    _, _, backend, _ = build(context, ScriptedBackend(name="another"))
    assert len(backend.asked) == 20


def test_none_answers_have_no_vector_and_are_counted_apart(tmp_path):
    context = make_context(tmp_path, block_pairs(20, 30), semantic_negatives_per_user=2)
    semantics, reports, *_ = build(context, ScriptedBackend(none_share=0.5))
    declined = reports[1].declined
    assert 5 < declined < 35
    assert reports[1].missing == 0
    assert len(semantics.pair_vectors) == 40 - declined
    assert (semantics.pair_rows >= 0).sum() == 40 - declined


@pytest.mark.parametrize(
    ("reply", "title", "declined"),
    [
        ("None", "T", True),
        ("none.", "T", True),
        ("The Firm", "Firm, The", True),
        ("FIRM!", "Firm, The", True),
        ("The Firm 2", "Firm, The", False),
        ("Firmament", "Firm, The", False),
        ("!", "?", False),
        ("Anything", "", False),
    ],
)
def test_a_reply_that_names_no_other_item_is_declined(reply, title, declined):
    own = {title_words("Another of the user's items"), title_words(title)}
    assert is_declined({"hard_negative_item": reply, "reasoning": "r"}, own) == declined


def test_a_reply_that_names_another_training_item_of_the_user_is_declined(tmp_path):
    titles = {"i0": "Firm, The", "i1": "Heat", "i2": "Casino", "i3": "Fargo"}
    pairs = [("u0", "i0"), ("u0", "i1"), ("u1", "i2"), ("u1", "i3"), ("u2", "i0"), ("u2", "i2")]
    context = make_context(tmp_path, pairs, titles=titles, semantic_negatives_per_user=None)

    class NamesHeat(ScriptedBackend):
        def _reply(self, prompt, decoding):
            said = super()._reply(prompt, decoding)
            return json.dumps({**json.loads(said), "hard_negative_item": "HEAT!"}) if "chosen_item" in prompt.user else said

    semantics, reports, *_ = build(context, NamesHeat())
    # Only u0 has Heat in training: both of its pairs are declined, that of Heat itself and that of The Firm.
    assert reports[1].declined == 2
    assert [bool(row >= 0) for row in semantics.pair_rows] == [False, False, True, True, True, True]
    shown = show_user(context, "u0", encoder=ScriptedEncoder())
    assert shown.count("named no item that is new to the user, so the pair has no vector") == 2


def test_missing_replies_are_counted_within_the_limit(tmp_path):
    context = make_context(tmp_path, block_pairs(), max_missing_share=0.2)
    items = [item for _, item in context.chosen_pairs]
    user, item = next((user, item) for user, item in context.chosen_pairs if items.count(item) == 1)
    semantics, reports, *_ = build(context, ScriptedBackend(garbage=[f'"title":"Title of {item}"}}}}']))
    assert [report.missing for report in reports] == [0, 1, 0]
    assert len(semantics.pair_vectors) == 5
    rows = semantics.pair_rows[context.training.rows_of(int(user[1:]) + 1)]
    assert (rows == -1).all()


def test_missing_replies_alone_are_asked_again_by_the_next_run_of_a_server(tmp_path):
    context = make_context(tmp_path, block_pairs(), max_missing_share=0.2)
    items = [item for _, item in context.chosen_pairs]
    item = next(item for item in items if items.count(item) == 1)
    garbage = [f'"title":"Title of {item}"}}}}']
    build(context, ScriptedBackend(garbage=garbage))
    (context.dataset_artifacts / "replies.sqlite").unlink()  # what is there is not asked again, even without the cache

    still_bad = ScriptedBackend(garbage=garbage)
    _, reports, *_ = build(context, still_bad)
    assert (reports[1].reused, reports[1].generated, reports[1].missing) == (5, 0, 1)
    assert len(still_bad.asked) == 2
    assert reply_artifact(context, "negatives").manifest()["runs"] == 2

    healthy = ScriptedBackend()
    semantics, reports, *_ = build(context, healthy)
    assert len(healthy.asked) == 1
    assert (reports[1].reused, reports[1].generated, reports[1].missing) == (5, 1, 0)
    assert len(semantics.pair_vectors) == 6
    rows = reply_artifact(context, "negatives").read()
    assert [(row["user_id"], row["item_id"]) for row in rows] == context.chosen_pairs
    build(context, NoBackend())


def test_missing_replies_of_a_local_model_or_a_dead_server_stay_as_they_are(tmp_path, caplog):
    context = make_context(tmp_path, block_pairs(), max_missing_share=0.2)
    items = [item for _, item in context.chosen_pairs]
    item = next(item for item in items if items.count(item) == 1)
    local = ScriptedBackend(garbage=[f'"title":"Title of {item}"}}}}'])
    local.identity = replace(local.identity, backend="transformers")
    build(context, local)
    asked = len(local.asked)
    _, reports, *_ = build(context, local)
    # Its attempts are seeded by the settings: the same prompts would fail in the same way.
    assert (len(local.asked), reports[1].missing) == (asked, 1)

    build(context, ScriptedBackend(garbage=[f'"title":"Title of {item}"}}}}']))
    dead = ScriptedBackend()

    def refuse(prompts, decoding):
        raise BackendError("the server is gone")

    dead.generate = refuse
    semantics, reports, *_ = build(context, dead)
    assert (reports[1].missing, len(semantics.pair_vectors)) == (1, 5)
    assert "1 replies are still missing, and cannot be asked for now: the server is gone" in caplog.text


def test_too_many_missing_replies_fail(tmp_path):
    context = make_context(tmp_path, block_pairs(), max_missing_share=0.2)
    with pytest.raises(BackendError, match="4 of 6 replies"):  # i3 is quoted for u0, u1, u2 and u3
        build(context, ScriptedBackend(garbage=["Title of i3 (Things)"]))


def test_pairs_without_a_profile_count_as_missing(tmp_path):
    context = make_context(tmp_path, block_pairs(), max_missing_share=1.0, semantic_negatives_per_user=None)
    semantics, reports, *_ = build(context, ScriptedBackend(garbage=['["Title of i3 (Things)"']))
    first_shown = {
        user for user, prompt in user_prompts(context).items() if prompt.user.startswith('{"items":["Title of i3 (Things)"')
    }
    assert 0 < len(first_shown) < 6
    assert [report.missing for report in reports] == [len(first_shown), 4 * len(first_shown), 0]
    assert reports[1].total == 24
    assert len(semantics.pair_vectors) == 24 - 4 * len(first_shown)


def test_alignment_alone_loads_no_language_model(tmp_path):
    context = make_context(tmp_path, block_pairs(), mix_weight=0, contrast_weight=0)
    semantics, reports, *_ = build(context, NoBackend())
    assert [report.name for report in reports] == ["encode"]
    assert semantics.item_vectors.shape == (9, 8)
    assert semantics.pair_vectors.shape == (0, 0)
    assert semantics.coverage == 0
    assert not (context.dataset_artifacts / "replies.sqlite").exists()


def test_alignment_by_profiles_encodes_profiles(tmp_path):
    context = make_context(tmp_path, block_pairs(), mix_weight=0, contrast_weight=0, alignment_source="profile")
    semantics, reports, *_ = build(context)
    assert [report.name for report in reports] == ["profile", "encode"]
    profiles = {row["user_id"]: row["summarization"] for row in reply_artifact(context, "profiles_users").read()}
    assert np.allclose(semantics.user_vectors[2], vector_of(profiles["u1"]), atol=1e-3)
    assert semantics.user_mask.tolist() == [False, *[True] * 6]
    assert semantics.item_mask.sum() == 8


def test_no_semantics_means_no_stage(tmp_path):
    context = make_context(tmp_path, block_pairs(), negative_route="none", alignment_weight=0.0)
    semantics, reports, *_ = build(context, NoBackend())
    assert reports == []
    assert semantics.coverage == 0
    with pytest.raises(ConfigError, match="negative_route is none"):
        run_stage(context, "profile", backend=NoBackend())
    with pytest.raises(ConfigError, match="no stage 'profiles'; the stages are profile, negatives, finetune, encode"):
        run_stage(context, "profiles", backend=NoBackend())


def test_a_stage_builds_what_it_needs(tmp_path):
    context = make_context(tmp_path, block_pairs())
    backend = ScriptedBackend()
    report = run_stage(context, "negatives", backend=backend, encoder=ScriptedEncoder())
    assert (report.name, report.total, report.generated) == ("negatives", 6, 6)
    assert len(backend.asked) == 20
    assert not (context.split_artifacts / "vectors").exists()
    assert not backend.closed


def test_a_dataset_without_item_file_names_the_way_out(tmp_path):
    context = make_context(tmp_path, block_pairs())
    (tmp_path / "toy" / "toy.item").unlink()
    with pytest.raises(DataError, match="--negative_route=none"):
        build(context)


def test_a_store_with_swapped_rows_is_refused_when_training_asks_for_it(tmp_path):
    context = make_context(tmp_path, block_pairs())
    build(context)
    path = context.split_artifacts / "vectors" / "pairs" / "vectors.npy"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(ArtifactError, match=r"SHA-256 of vectors\.npy.*recbole-hnlm encode"):
        build(context)


def test_an_edited_reply_file_is_refused_by_show_and_renewed_by_its_stage(tmp_path, caplog):
    context = make_context(tmp_path, block_pairs())
    build(context)
    path = context.split_artifacts / "profiles_users.jsonl"
    original = path.read_text()
    path.write_text(original.replace("thing", "thong"))
    with pytest.raises(ArtifactError, match="corrupt or was edited"):
        show_user(context, "u1")
    run_stage(context, "profile", backend=NoBackend())
    assert path.read_text() == original
    assert [f"{path} is missing, damaged or was edited" in line for line in caplog.messages].count(True) == 1


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from stages_kit import ScriptedBackend, ScriptedEncoder, block_pairs, make_context
from recbole_hnlm.semantics.pipeline import build_semantics
class Counting(ScriptedBackend):
    def generate(self, prompts, decoding):
        replies = super().generate(prompts, decoding)
        with open({log!r}, "a") as log:
            log.write("".join("L\\n" for _ in prompts))
        return replies
class CountingEncoder(ScriptedEncoder):
    def encode(self, texts):
        vectors = super().encode(texts)
        with open({log!r}, "a") as log:
            log.write("".join("E\\n" for _ in texts))
        return vectors
context = make_context(Path({folder!r}), block_pairs(40, 40), semantic_negatives_per_user=2)
build_semantics(context, backend=Counting(pause=0.02), encoder=CountingEncoder(pause=0.02))
"""


def start_child(tmp_path):
    script = CHILD.format(tests=str(Path(__file__).parent), log=str(tmp_path / "log"), folder=str(tmp_path))
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)


@pytest.mark.parametrize(("stage", "after"), [("profile", 10), ("profile", 55), ("negatives", 100), ("encode", 200)])
def test_kill_9_loses_at_most_the_batch_in_flight(tmp_path, stage, after):
    """40 + 40 profiles, 80 negatives, 40 + 80 vectors: killed in each stage, 4 replies or vectors may be made twice."""
    log = tmp_path / "log"
    child = start_child(tmp_path)
    deadline = time.monotonic() + 300
    while (len(log.read_bytes()) // 2 if log.exists() else 0) < after:
        assert child.poll() is None, child.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stderr.close()
    before = log.read_text().count("L"), log.read_text().count("E")
    context = make_context(tmp_path, block_pairs(40, 40), semantic_negatives_per_user=2)
    semantics, _, backend, encoder = build(context)
    assert 160 <= before[0] + len(backend.asked) <= 164
    assert 120 <= before[1] + len(encoder.texts) <= 124
    assert (before[1] > 0) == (stage == "encode")
    reference = make_context(tmp_path / "reference", block_pairs(40, 40), semantic_negatives_per_user=2)
    expected, *_ = build(reference)
    assert (semantics.pair_vectors == expected.pair_vectors).all()
    assert (semantics.pair_rows == expected.pair_rows).all()
    assert not list(context.split_artifacts.rglob("*.partial"))


def test_two_processes_on_one_folder_do_the_work_once(tmp_path):
    children = [start_child(tmp_path) for _ in range(2)]
    errors = [child.communicate(timeout=120)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert (tmp_path / "log").read_text().count("L") == 160
    assert (tmp_path / "log").read_text().count("E") == 120


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from stages_kit import ScriptedBackend, ScriptedEncoder, block_pairs, make_context
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.semantics.pipeline import run_stage, stages_needed
context = make_context(Path({folder!r}), block_pairs())
stage = {stage!r}
route = stages_needed(context.settings)
for earlier in route[: route.index(stage)]:
    run_stage(context, earlier, backend=ScriptedBackend())
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))  # Python ignores SIGXFSZ, so a write beyond it fails
try:
    run_stage(context, stage, backend=ScriptedBackend(), encoder=ScriptedEncoder())
except ArtifactError as error:
    print(error)
"""


@pytest.mark.parametrize(("stage", "limit"), [("profile", 20_000), ("profile", 100), ("negatives", 300), ("encode", 250)])
def test_a_full_disk_is_one_line_and_earlier_work_is_kept(tmp_path, stage, limit):
    script = FULL_DISK.format(tests=str(Path(__file__).parent), folder=str(tmp_path), stage=stage, limit=limit)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    message = run.stdout.strip()
    assert str(tmp_path / "artifacts") in message, run.stderr
    assert len(message.splitlines()) == 1
    assert "room" in message
    context = make_context(tmp_path, block_pairs())
    _, reports, *_ = build(context)
    done = stages_needed(context.settings).index(stage)
    assert [report.generated for report in reports[:done]] == [0] * done
    assert reports[-1].total == 14


def test_show_tells_what_the_model_was_told_and_said(tmp_path):
    context = make_context(tmp_path, block_pairs(), semantic_negatives_per_user=2)
    build(context)
    text = show_user(context, "u1", encoder=ScriptedEncoder())
    profile = next(row for row in reply_artifact(context, "profiles_users").read() if row["user_id"] == "u1")
    assert "user u1: 4 training interactions" in text
    assert all(f"Title of i{n} [i{n}]" in text for n in (1, 2, 3, 4))
    assert f"profile: {profile['summarization']}" in text
    prompt = user_prompts(context)["u1"]
    assert prompt.user in text
    assert prompt.system in text
    negatives = [row for row in reply_artifact(context, "negatives").read() if row["user_id"] == "u1"]
    assert len(negatives) == 2
    own_texts = {item: vector_of(f"Title of {item}. Things") for item in map(str, context.training.item_tokens[1:])}
    for row in negatives:
        query = vector_of(row["hard_negative_item"])
        best = sorted(own_texts, key=lambda item: -float(own_texts[item] @ query))[:3]
        block = text.split(json.dumps(row["hard_negative_item"]))[1].splitlines()[2:5]
        assert [line.split("[")[1].split("]")[0] for line in block] == best
        for line, item in zip(block, best, strict=True):
            history = {"i1", "i2", "i3", "i4"}
            assert ("(the positive itself)" in line) == (item == row["item_id"])
            assert ("(in the training history)" in line) == (item in history - {row["item_id"]})


def test_show_names_near_users_and_the_command_that_is_missing(tmp_path):
    context = make_context(tmp_path, block_pairs())
    with pytest.raises(DataError, match="no user 'u11' in toy; near matches: u1"):
        show_user(context, "u11")
    with pytest.raises(ArtifactError, match="run `recbole-hnlm profile --dataset=toy`"):
        show_user(context, "u1")
    run_stage(context, "profile", backend=ScriptedBackend())
    with pytest.raises(ArtifactError, match="run `recbole-hnlm negatives --dataset=toy`"):
        show_user(context, "u1")
    run_stage(context, "negatives", backend=ScriptedBackend())
    with pytest.raises(ArtifactError, match="recbole-hnlm encode"):
        show_user(context, "u1", encoder=ScriptedEncoder())


def test_nearest_rows_by_hand():
    vectors = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [-1.0, 0.0]])
    (first, cosine), (second, diagonal) = nearest_rows(np.array([1.0, 0.0]), vectors, 2)
    assert (first, second) == (0, 2)
    assert cosine == pytest.approx(1.0)
    assert diagonal == pytest.approx(0.5**0.5)


def test_two_users_with_the_same_history_share_a_reply_and_keep_their_own_rows(tmp_path):
    context = make_context(tmp_path, [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")], semantic_negatives_per_user=None)
    _, reports, backend, _ = build(context)
    users = reply_artifact(context, "profiles_users").read()
    assert [row["user_id"] for row in users] == ["a", "b"]
    assert reports[0].total == 4
    assert len({row["summarization"] for row in users}) == len(
        {prompt.user for prompt in backend.asked if prompt.user.startswith('{"items"')}
    )
