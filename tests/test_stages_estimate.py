"""What a run would ask of the LLM, found without asking: coverage, plans, rates, ``--dry_run``."""

from dataclasses import replace

import numpy as np
import pytest
from llm_tiny import save_tiny_model, tiny_tokenizer
from stages_kit import NoBackend, ScriptedBackend, ScriptedEncoder, block_pairs, make_context

from recbole_hnlm import cli
from recbole_hnlm.config import Config
from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.cost import coverage, dry_run, planning, rates, token_count
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.finetune.stage import plan_finetuning
from recbole_hnlm.llm.grammar import JsonGrammars
from recbole_hnlm.llm.openai_backend import served_identity
from recbole_hnlm.llm.replies import hard_negative_format, profile_format
from recbole_hnlm.quick_start.launch import RunRequest
from recbole_hnlm.semantics.attach import stage_context_of
from recbole_hnlm.semantics.pipeline import build_semantics, run_stage, stages_needed
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.stages.profile import user_prompts
from recbole_hnlm.utils.errors import ArtifactError, BackendError, ConfigError

IDENTITY = ScriptedBackend().identity


def plan_replies(context, identity):
    """The planned prompts of all stages, in order."""
    return [replies for plan in planning.plan_stages(context, identity) for replies in plan.replies]


def _files(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def _server(**keys):
    return {"llm_backend": "openai", "llm_model": "m", "llm_base_url": "http://localhost:1/v1", **keys}


# --- plans -------------------------------------------------------------------------------------------------------------


def test_a_plan_counts_what_the_stages_ask_and_nothing_is_left_after_them(tmp_path):
    context = make_context(tmp_path, block_pairs())
    plans = plan_replies(context, IDENTITY)
    assert [(plan.job.name, plan.prompts, plan.there, len(plan.ask), plan.guessed) for plan in plans] == [
        ("profiles_items", 8, 0, 8, 0),
        ("profiles_users", 6, 0, 6, 0),
        ("negatives", 6, 0, 6, 6),
    ]
    assert not (tmp_path / "artifacts").exists()
    backend = ScriptedBackend()
    run_stage(context, "negatives", backend=backend)
    assert len(backend.asked) == sum(len(plan.ask) for plan in plans)
    before = _files(tmp_path)
    done = plan_replies(context, IDENTITY)
    assert [(plan.prompts, plan.there, plan.ask) for plan in done] == [(8, 8, []), (6, 6, []), (6, 6, [])]
    assert _files(tmp_path) == before


def test_what_the_cache_knows_is_subtracted_and_the_rest_is_exactly_what_is_asked_next(tmp_path):
    few = make_context(tmp_path, block_pairs()[:12])
    run_stage(few, "negatives", backend=ScriptedBackend())
    more = make_context(tmp_path, block_pairs())
    plans = plan_replies(more, IDENTITY)
    items, users, negatives = plans
    assert (items.prompts, items.there) == (8, 6)
    assert (users.prompts, users.there) == (6, 3)
    assert (negatives.prompts, negatives.there, negatives.guessed) == (6, 3, 3)
    backend = ScriptedBackend()
    run_stage(more, "negatives", backend=backend)
    assert len(backend.asked) == 2 + 3 + 3
    known = {prompt for plan in (items, users) for prompt in plan.ask}
    assert {prompt for prompt in backend.asked if "hard negative" not in prompt.system} == known


def test_another_model_or_decoding_finds_nothing_in_the_cache(tmp_path):
    context = make_context(tmp_path, block_pairs())
    run_stage(context, "negatives", backend=ScriptedBackend())
    other = plan_replies(context, ScriptedBackend(name="another").identity)
    assert [plan.there for plan in other] == [0, 0, 0]
    warmer = make_context(tmp_path, block_pairs(), llm_temperature=0.5)
    assert [plan.there for plan in plan_replies(warmer, IDENTITY)] == [0, 0, 0]


def test_equal_prompts_count_once(tmp_path):
    context = make_context(tmp_path, block_pairs(), titles={f"i{item}": "One title" for item in range(8)})
    items = plan_replies(context, IDENTITY)[0]
    assert (items.prompts, items.there, len(items.ask)) == (8, 7, 1)


@pytest.mark.parametrize(("kind", "asked"), [("transformers", 0), ("openai", 1)])
def test_of_a_finished_artefact_only_a_server_is_asked_again_for_what_is_missing(tmp_path, kind, asked):
    context = make_context(tmp_path, block_pairs(), max_missing_share=0.5)
    backend = ScriptedBackend(garbage=('"Title of i3"',))
    backend.identity = replace(backend.identity, backend=kind)
    run_stage(context, "profile", backend=backend)
    assert [len(plan.ask) for plan in plan_replies(context, backend.identity)[:2]] == [asked, 0]


def test_the_plan_of_the_tuned_route_by_hand(tmp_path):
    keys = {
        "finetune_max_length": 100,
        "finetune_user_tokens": 30,
        "finetune_heldout_users": 0,
        "alignment_source": "finetuned",
    }
    steps = {"finetune_steps": 5, "finetune_batch_size": 4, "finetune_accumulation": 3}
    context = make_context(tmp_path, block_pairs(), negative_route="finetuned", finetune_text="titles", **keys, **steps)
    assert plan_replies(context, IDENTITY) == []
    plan = plan_finetuning(context, kinds_needed(context.settings))
    assert (plan.steps, plan.pairs, plan.available) == (5, 5 * 4 * 3, 24)
    assert plan.tokens == 60 * (100 + 2 * 70)
    assert (plan.pair_vectors, plan.item_vectors, plan.adapters) == (6, 8, 0)
    assert plan.vector_tokens == 6 * 100 + 8 * 70
    assert "finetune" not in stages_needed(make_context(tmp_path, block_pairs()).settings)


# --- tokens ------------------------------------------------------------------------------------------------------------


def test_tokens_are_those_that_the_backend_reads(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    context = make_context(tmp_path, block_pairs(), llm_model=str(folder))
    counter = token_count.TokenCounter(context.settings)
    prompt = next(iter(user_prompts(context).values()))
    tokenizer = tiny_tokenizer()
    turns = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert counter.is_exact
    # Texts are tokenised apart from the template; with bytes as tokens and few merges that may cost a token at each seam.
    assert counter.count(prompt) == pytest.approx(len(tokenizer(text).input_ids), abs=4)
    assert counter.count(prompt, "abc") == counter.count(prompt) + 3


def test_a_servers_tokens_are_characters_by_four_and_said_to_be(tmp_path):
    context = make_context(tmp_path, block_pairs(), **_server())
    counter = token_count.TokenCounter(context.settings)
    prompt = next(iter(user_prompts(context).values()))
    assert counter.count(prompt) == -(-(len(prompt.system) + len(prompt.user)) // 4)
    assert "estimate" in counter.how
    assert not counter.is_exact


def test_a_hub_model_that_is_not_here_is_estimated_without_the_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not local" in token_count.TokenCounter(validate_settings({"llm_model": "acme/never-downloaded"})).how


def test_a_folder_without_tokenizer_is_one_line(tmp_path):
    with pytest.raises(BackendError, match="tokenizer cannot be read"):
        token_count.TokenCounter(validate_settings({"llm_model": str(tmp_path)}))


def test_many_prompts_are_scaled_from_a_sample(monkeypatch, tmp_path):
    context = make_context(tmp_path, block_pairs(), **_server())
    prompts = list(user_prompts(context).values())
    counter = token_count.TokenCounter(context.settings)
    monkeypatch.setattr(token_count, "SAMPLE", 3)
    lengths = counter.lengths(prompts)
    assert len(lengths) == 3
    assert counter.total(prompts) == round(lengths.mean() * 6)


@pytest.mark.parametrize("make", [profile_format, hard_negative_format])
def test_the_opening_is_the_grammars(make):
    form = make(validate_settings({}))
    tokenizer = tiny_tokenizer()
    assert token_count.reply_opening(form) == JsonGrammars(tokenizer, len(tokenizer), 1).opening(form.schema)


# --- rates -------------------------------------------------------------------------------------------------------------


def _rate(asked, context, plans=()):
    return rates.find_rate(asked, context, plans, token_count.TokenCounter(context.settings))


@pytest.mark.parametrize("rate", ["x", "0", "-3", "nan", "inf", ""])
def test_a_rate_is_read_also_where_nothing_is_asked(tiny_keys, workdir, rate):
    with pytest.raises(ConfigError, match="--rate: expected tokens per second such as 300, or measure, got"):
        dry_run.dry_run(Config("BPR", "tiny", config_dict=tiny_keys), rate)


def test_rates_say_where_they_come_from(tmp_path):
    server = make_context(tmp_path, block_pairs(), **_server(llm_concurrency=4))
    assert _rate("250", server) == rates.Rate(250.0, "as given by --rate")
    assumed = _rate(None, server)
    assert (assumed.tokens_per_second, assumed.source[:21]) == (200.0, "assumed, not measured")
    local = make_context(tmp_path, block_pairs(), llm_model=str(save_tiny_model(tmp_path / "model")))
    assert _rate(None, local).tokens_per_second is None
    assert "--rate=measure" in _rate(None, local).source


@pytest.mark.parametrize("text", ["fast", "0", "-3", "inf", "nan"])
def test_a_rate_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="tokens per second"):
        _rate(text, make_context(tmp_path, block_pairs(), **_server()))


def test_a_trial_asks_64_prompts_and_keeps_nothing(tmp_path, monkeypatch):
    context = make_context(tmp_path, block_pairs(n_users=100, n_items=100), **_server())
    backend = ScriptedBackend(pause=0.05)
    monkeypatch.setattr(rates, "load_backend", lambda settings, device: backend)
    plans = plan_replies(context, IDENTITY)
    rate = _rate("measure", context, plans)
    assert len(backend.asked) == 1 + 64
    assert backend.closed
    assert len(set(backend.asked[1:])) == 64
    assert rate.tokens_per_reply > 5
    assert rate.tokens_per_second < 64 * rate.tokens_per_reply / 0.05
    assert "measured on 64 prompts" in rate.source
    assert not (tmp_path / "artifacts").exists()


# --- coverage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def covered(tmp_path):
    """Eight items, of which one has no title and one no text at all; reviews of three pairs by two users."""
    context = make_context(tmp_path, block_pairs(), **_server())
    rows = ["item_id:token\ttitle:token_seq\tcategories:token_seq\tdescription:token_seq"]
    rows += [f"i{item}\t{'' if item in {0, 1} else 'T'}\t{'C' if item != 1 else ''}\t" for item in range(8)]
    (tmp_path / "toy" / "toy.item").write_text("\n".join(rows) + "\n")
    pairs = block_pairs()
    said = {("u0", "i2"): "good", ("u0", "i3"): "bad", ("u5", "i7"): "fine"}
    lines = ["user_id:token\titem_id:token\treview:token_seq", *(f"{u}\t{i}\t{said.get((u, i), '')}" for u, i in pairs)]
    (tmp_path / "toy" / "toy.inter").write_text("\n".join(lines) + "\n")
    return context


def test_coverage_by_hand(covered):
    found = coverage.measure_coverage(covered, token_count.TokenCounter(covered.settings))
    assert (found.items, found.users, found.any_text) == (8, 6, 7)
    assert found.fields == {"title": 6, "categories": 7, "city": None, "description": 0}
    assert (found.reviewed_items, found.reviewing_users) == (3, 2)
    assert found.prompts == {"users": 6, "items": 7}
    text = coverage.coverage_text(found)
    assert "6 of 8 (75.0%)" in text
    assert "2 of 6 (33.3%)" in text
    assert text.count("no such column") == 1
    assert f"{int(found.lengths['users'].max()):,}" in text.splitlines()[-2]


def test_quantiles_are_lengths_that_occur(covered):
    found = coverage.measure_coverage(covered, token_count.TokenCounter(covered.settings))
    found.lengths["users"] = np.arange(1, 101)
    row = next(line for line in coverage.coverage_text(found).splitlines() if line.startswith("  users  "))
    assert [int(cell) for cell in row.split()[2:]] == [1, 5, 25, 50, 75, 95, 100]


@pytest.mark.parametrize(("least", "most", "width", "bins"), [(3, 3, 1, 1), (1, 40, 1, 40), (1, 41, 2, 21), (122, 180, 2, 30)])
def test_every_bin_of_the_histogram_holds_equally_many_lengths(least, most, width, bins):
    edges = coverage._edges(np.array([most, least]))
    assert len(edges) - 1 == bins
    assert set(np.diff(edges)) <= {width}
    assert edges[0] == least - 0.5
    assert most < edges[-1] <= most + width


def test_the_picture_is_a_png_and_a_failed_one_is_one_line(covered, tmp_path):
    found = coverage.measure_coverage(covered, token_count.TokenCounter(covered.settings))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="choose another folder"):
        coverage.draw_lengths(found, tmp_path / "file" / "a.png")
    coverage.draw_lengths(found, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# --- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def text_run(workdir, tiny_data_path):
    """Arguments of a run on ``tiny`` with text, in an empty folder."""
    source = (tiny_data_path / "tiny" / "tiny.inter").read_text()
    folder = workdir / "dataset" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_text(source)
    rows = "".join(f"i{item}\tTitle {item}\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    keys = _server(data_path="dataset", topk="[5]", valid_metric="MRR@5", use_gpu=False)
    return ["--dataset=tiny", *(f"--{key}={value}" for key, value in keys.items())]


def test_a_dry_run_prints_the_plan_and_writes_nothing(workdir, text_run, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = _files(workdir)
    assert cli.run_script(["--model=HNLMLightGCN", *text_run, "--dry_run", "--rate=100"]) == 0
    shown = capsys.readouterr().out
    assert _files(workdir) == before
    assert "nothing is written" in shown
    table = {line[:17].strip(): line[17:].split() for line in shown.splitlines() if line.startswith("  ")}
    assert table["user profiles"][:3] == ["41", "0", "41"]
    assert table["hard negatives"][:3] == ["41", "0", "41"]
    settings = validate_settings(_server())
    limit = profile_format(settings).max_new_tokens
    assert table["user profiles"][4] == f"{41 * limit:,}"
    # 14 + 1.4 * (15 + 5) and 14 + 1.4 * (8 + 5) tokens a reply at 100 tokens/s.
    items = int(table["item profiles"][2])
    expected = (41 + items) * (14 + 1.4 * 20) + 41 * (14 + 1.4 * 13)
    assert f"about {expected / 100 / 3600:.2f} hours = {expected:,.0f} tokens out" in shown
    assert "to be billed" in shown


def test_a_dry_run_agrees_with_the_run_that_follows(workdir, text_run, capsys, monkeypatch):
    argv = ["--model=HNLMLightGCN", *text_run]
    config = RunRequest("HNLMLightGCN", argv=tuple(argv[1:])).config()
    context = stage_context_of(config, load_data(config).train._dataset)
    backend = ScriptedBackend()
    backend.identity = identity = served_identity(context.settings)
    build_semantics(context, backend=backend, encoder=ScriptedEncoder())
    assert cli.run_script([*argv, "--dry_run"]) == 0
    assert "every reply is there" in capsys.readouterr().out
    assert len(backend.asked) == sum(plan.prompts for plan in plan_replies(context, identity))
    silent = NoBackend()
    silent.identity = identity
    build_semantics(context, backend=silent, encoder=ScriptedEncoder())


def test_a_dry_run_of_the_tuned_route_names_pairs_and_steps(workdir, text_run, capsys):
    plain = [token for token in text_run if not token.startswith("--llm")]
    keys = ["--negative_route=finetuned", "--finetune_text=titles", "--finetune_steps=7", "--finetune_batch_size=8"]
    assert cli.run_script(["--model=HNLMLightGCN", *plain, *keys, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "fine-tuning: 7 steps, 56 pairs of" in shown
    assert "vectors: 41 pairs and 30 items" in shown
    # 56 pairs at 3 a second and 41 + 30 vectors at 18.
    assert f"time: about {(56 / 3 + (41 + 30) / 18) / 3600:.2f} hours" in shown
    assert not (workdir / "artifacts").exists()


def test_a_model_without_an_llm_needs_none(workdir, text_run, capsys):
    plain = [token for token in text_run if not token.startswith("--llm")]
    assert cli.run_script(["--model=BPR", *plain, "--dry_run"]) == 0
    assert "0 prompts, 0 tokens" in capsys.readouterr().out


def test_a_dry_run_downloads_nothing(workdir, capsys):
    assert cli.run_script(["--model=BPR", "--dataset=yelp", "--dry_run"]) == 2
    assert "recbole-hnlm coverage --dataset=yelp" in capsys.readouterr().err
    assert _files(workdir) == []


def test_a_rate_without_a_dry_run_is_refused(workdir, capsys):
    assert cli.run_script(["--model=BPR", "--dataset=ml-100k", "--rate=3"]) == 2
    assert capsys.readouterr().err.startswith("error: --rate goes with --dry_run")


def test_the_verb_coverage_prints_and_draws(workdir, text_run, capsys):
    assert cli.main(["coverage", *text_run, "--out=pictures"]) == 0
    shown = capsys.readouterr().out
    assert "30 of 30 (100.0%)" in shown
    assert shown.splitlines()[-1] == "picture: pictures/coverage-tiny.png"
    assert (workdir / "pictures" / "coverage-tiny.png").stat().st_size > 5000
    assert not (workdir / "artifacts").exists()


def test_a_damaged_cache_is_one_line(tmp_path):
    context = make_context(tmp_path, block_pairs())
    context.dataset_artifacts.mkdir(parents=True)
    (context.dataset_artifacts / "replies.sqlite").write_bytes(b"no database, but long enough to look at" * 40)
    with pytest.raises(ArtifactError, match=r"replies\.sqlite cannot be used"):
        plan_replies(context, IDENTITY)
    assert len(_files(context.dataset_artifacts)) == 1
