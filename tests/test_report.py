"""The report: verdicts with known answers, text that stays text, a page that loads nothing, equal bytes for equal inputs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from report_kit import HOSTILE, make_record, write_comparison, write_run, write_search

from recbole_hnlm.cli import main
from recbole_hnlm.evaluator.statistics import PairedTest
from recbole_hnlm.experiments.report import view
from recbole_hnlm.experiments.report.analyses import analysis_sections
from recbole_hnlm.experiments.report.build import build_report
from recbole_hnlm.experiments.report.figures import Curve, curves
from recbole_hnlm.experiments.report.parts import run_command
from recbole_hnlm.experiments.report.samples import SampleOptions, gather_samples
from recbole_hnlm.experiments.report.text import csv_text, plural, seconds_text, tidy
from recbole_hnlm.experiments.report.verdict import comparison_verdict, stars, subject_of
from recbole_hnlm.experiments.summary import Comparison, Row, Table
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.results import read_result

NO_USERS = SampleOptions(users=0)
METHODS = {"LightGCN + dns": ("baseline", 0.0), "HNLMLightGCN + dns": ("hnlm", 0.05)}
_VOID = {"meta", "link", "br", "img", "input"}


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each kind of element."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open += [] if tag in _VOID else [tag]

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def table_of(difference, p, *, ranks=None, role="hnlm", mean=0.22):
    """A table of LightGCN, the reference, and HNLM with a known difference and p over 100 users."""
    ranks = difference if ranks is None else ranks
    test = PairedTest(100, difference, p, p, 0.1, ranks)
    adjusted = dict.fromkeys(("users_t", "users_wilcoxon", "seeds_t", "seeds_wilcoxon"), p)
    base = Row("LightGCN", "baseline", [1], [mean], mean, None, difference < 0, True, None, 1.0, None)
    value = mean + difference
    comparison = Comparison(test, test, adjusted)
    other = Row("HNLM", role, [1], [value], value, None, difference > 0, False, value / mean - 1, 1.0, comparison)
    return Table("toy", ["ndcg@20"], {"ndcg@20": [base, other]}, {}, 100, [])


VALID = {"LightGCN": 0.2, "HNLM": 0.19}


@pytest.mark.parametrize(
    ("difference", "p", "ranks", "tone", "sentence"),
    [
        (
            0.022,
            0.001,
            0.4,
            "win",
            "HNLM beats LightGCN, the strongest baseline on validation, by 10.0 % on toy: "
            "NDCG@20 0.2420 against 0.2200 (p = 0.001 over 100 users).",
        ),
        (
            -0.022,
            0.00001,
            -0.4,
            "loss",
            "HNLM falls behind LightGCN, the strongest baseline on validation, by 10.0 % on toy: "
            "NDCG@20 0.1980 against 0.2200 (p < .0001 over 100 users).",
        ),
        (
            0.022,
            0.05,
            0.4,
            "tie",
            "HNLM and LightGCN, the strongest baseline on validation, cannot be told apart on toy: "
            "NDCG@20 0.2420 against 0.2200 (p = 0.05 over 100 users).",
        ),
        (
            0.022,
            0.01,
            -0.4,
            "tie",
            "HNLM and LightGCN, the strongest baseline on validation, disagree by measure on toy: the mean is higher, "
            "NDCG@20 0.2420 against 0.2200, while users are more often worse off (p = 0.01 over 100 users).",
        ),
    ],
)
def test_the_verdict_says_who_wins_by_how_much_and_how_surely(difference, p, ranks, tone, sentence):
    verdict = comparison_verdict(table_of(difference, p, ranks=ranks), VALID)
    assert verdict.sentence.replace("\xa0", " ") == sentence
    assert (verdict.tone, verdict.subject) == (tone, "HNLM")


def test_without_a_rival_or_a_reference_the_verdict_claims_nothing():
    alone = table_of(0.022, 0.001)
    alone.rows["ndcg@20"].pop(1)
    assert comparison_verdict(alone, VALID).sentence == "LightGCN reaches NDCG@20 0.2200 on toy; nothing was compared with it."
    unknown = table_of(0.022, 0.001)
    rows = [Row(**{**row.__dict__, "is_reference": False, "comparison": None}) for row in unknown.rows["ndcg@20"]]
    verdict = comparison_verdict(Table("toy", ["ndcg@20"], {"ndcg@20": rows}, {}, 100, []), dict.fromkeys(VALID))
    assert verdict.tone == "plain"
    assert "there is no reference to test it against" in verdict.sentence


def test_the_subject_is_chosen_on_validation_and_never_by_test_values():
    table = table_of(0.02, 0.001, role="rival")
    other = table.rows["ndcg@20"][1]
    table.rows["ndcg@20"] += [Row(**{**other.__dict__, "label": "better on test", "mean": 0.9})]
    assert subject_of(table, {**VALID, "better on test": 0.1}) == "HNLM"
    assert subject_of(table, {**VALID, "better on test": 0.195}) == "better on test"


def test_stars_follow_the_usual_limits():
    assert [stars(p) for p in (None, 0.0009, 0.001, 0.0099, 0.01, 0.0499, 0.05)] == ["", "***", "**", "**", "*", "*", "n.s."]


def test_csv_holds_no_formula_and_keeps_numbers():
    rows = [["=1+1", "+x", "-2.5", "-x", "@a", "\tb", "plain", None, -0.5, 'a"b,c']]
    assert csv_text(rows) == "'=1+1,'+x,-2.5,'-x,'@a,'\tb,plain,,-0.5,\"a\"\"b,c\"\n"


def test_text_that_hides_or_reorders_text_is_shown_as_a_replacement():
    assert tidy("a\u202eb\u2066c\x00d\ud83d!\ufffe") == "a\ufffdb\ufffdc\ufffdd\ufffd!\ufffd"
    assert tidy("שלום مرحبا e\u0301 👩‍👩‍👧") == "שלום مرحبا e\u0301 👩‍👩‍👧"
    assert tidy("x" * 10_000, 10) == "x" * 10 + "… (9,990 more characters)"


def test_numbers_are_written_for_people():
    assert (plural(1, "seed"), plural(1200, "seed")) == ("1 seed", "1,200 seeds")
    assert [seconds_text(value) for value in (1.25, 61, 3725)] == ["1.2 s", "1 min 1 s", "1 h 2 min"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One input of each kind, and its page."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("run", "comparison", "search")}
    places = [write_run(folders["run"]), write_comparison(folders["comparison"], METHODS), write_search(folders["search"])]
    return {name: (place, build_report(place, NO_USERS)) for name, place in zip(folders, places, strict=True)}


def test_pages_carry_their_script_and_style_by_hash_and_nothing_inline(pages):
    for _, text in pages.values():
        page = Parsed(text)
        policy = next(meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        scripts = re.findall(r"<script(?: [^>]*)?>(.*?)</script>", text, flags=re.DOTALL)
        styles = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in (scripts[1], *styles)
        ]
        assert (len(scripts), len(styles)) == (2, 1)
        assert (rules["default-src"], [rules["script-src"], rules["style-src"]]) == ("'none'", hashes)
        assert "unsafe" not in policy
        assert len(scripts[1].encode()) <= 5_000
        names = {name for _, attrs in page.elements for name in attrs}
        assert not {name for name in names if name.startswith("on")} | names & {"style", "src", "action"}
        links = {value for _, attrs in page.elements for name, value in attrs.items() if name.endswith("href")}
        assert all(link.startswith(("#", "data:,")) for link in links)
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids))


def test_equal_inputs_give_equal_bytes(pages):
    for name in ("comparison", "search"):
        place, text = pages[name]
        assert build_report(place, NO_USERS) == text


def test_ten_methods_with_five_seeds_stay_below_the_size_that_opens_at_once(tmp_path):
    methods = {f"Method{place} + dns": ("hnlm" if place > 6 else "baseline", 0.01 * place) for place in range(10)}
    losses = {"train_loss": [1 / (1 + epoch) for epoch in range(300)], "valid_scores": [[e, e / 300] for e in range(300)]}
    text = build_report(write_comparison(tmp_path, methods, seeds=range(5), **losses), NO_USERS)
    assert 100_000 < len(text.encode()) < 500_000


def test_hostile_names_and_replies_stay_text(tmp_path):
    long = HOSTILE + "x" * 10_000
    methods = {f"A {HOSTILE}": ("baseline", 0.0), f"B {HOSTILE}": ("hnlm", 0.05)}
    folder = write_comparison(tmp_path, methods, dataset=HOSTILE, config={"title_field": long, "valid_metric": "NDCG@10"})
    results = json.loads((folder / "results.json").read_text())
    results["failures"] = {"cell9": f"\ud83d {long}"}
    results["table"]["notes"] = [long]
    (folder / "results.json").write_text(json.dumps(results))
    page = Parsed(build_report(folder, NO_USERS))
    assert len(page.of("script")) == 2
    assert not page.of("img")
    downloads = json.loads(page.texts["script"][0])
    assert HOSTILE in downloads["comparison.csv"].replace('""', '"')
    shown = "".join(text for tag, texts in page.texts.items() if tag not in {"script", "style"} for text in texts)
    assert "<script>alert(1)</script>" in shown
    assert "\u202e" not in shown
    assert "more characters" in shown
    assert "x" * 5_000 not in shown


def test_a_comparison_shows_stars_best_in_bold_and_its_commands(pages):
    _, text = pages["comparison"]
    assert "HNLMLightGCN + dns beats LightGCN + dns, the strongest baseline on validation" in text
    page = Parsed(text)
    assert "***" in page.texts["span"]
    best = [value for value in page.texts["strong"] if "±" in value]
    assert len(best) >= 1
    assert all(float(value.split()[0]) > 0.4 for value in best)
    assert "recbole-hnlm compare --dataset=toy" in "".join(page.texts["code"])
    assert "recbole-hnlm analyse --compare=" in "".join(page.texts["code"])


def _stage(prompt, completion, of_all, total=14):
    return {
        **{"total": total, "reused": 0, "generated": total, "missing": 0, "declined": 0, "seconds": 2.5},
        **{"prompt_tokens": prompt, "completion_tokens": completion, "tokens_of_all": of_all},
    }


STAGES = {"profile": _stage(1_400, 420, 1_820), "negatives": _stage(0, 0, 7_008), "encode": _stage(0, 0, 0)}


def test_a_run_shows_the_tokens_of_each_stage(tmp_path):
    seconds = {"train": 12.0, "profile": 2.5, "negatives": 1.5}
    text = build_report(write_run(tmp_path, stages=STAGES, seconds=seconds), NO_USERS)
    table = text[text.index("Cost by stage") :].split("</table>")[0]
    assert "tokens in" in table
    assert "tokens out" in table
    found = re.findall(r"<bdi>([^<]*)</bdi>", table)
    assert found == [
        *("train", "12.0", "0", "0", "profile", "2.5", "1,400", "420", "negatives", "1.5", "0", "0"),
    ]
    old = {name: {key: value for key, value in stage.items() if "tokens" not in key} for name, stage in STAGES.items()}
    text = build_report(write_run(tmp_path, stages=old, seconds=seconds), NO_USERS)
    assert text[text.index("Cost by stage") :].split("</table>")[0].count("n/a") == 4


def test_quality_is_drawn_against_tokens_where_they_are_known_and_against_replies_elsewhere(tmp_path):
    methods = {**METHODS, "HNLMLightGCN + uniform": ("hnlm", 0.02)}

    def page(name, **stages):
        changes = {f"HNLMLightGCN + {sampler}": {"stages": each} for sampler, each in stages.items()}
        return build_report(write_comparison(tmp_path / name, methods, of_method=changes), NO_USERS)

    text = page("known", dns=STAGES, uniform=STAGES)
    assert "thousand tokens of the LLM, in and out" in text
    assert "8,828" in text
    assert "replies of the LLM" not in text
    text = page("unknown", dns=STAGES, uniform={**STAGES, "negatives": _stage(0, 0, None)})
    assert "thousand tokens" not in text
    assert "replies of the LLM that a method reads" in text


def test_users_are_paired_and_counted(pages):
    folder, text = pages["comparison"]
    cells = {}
    for file in sorted((folder / "cells").glob("*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            cells.setdefault(file.name.split("-")[0], []).append(arrays["ndcg@10"].astype(np.float64))
    difference = np.mean(cells["cell1"], axis=0) - np.mean(cells["cell0"], axis=0)
    assert f"<bdi>{100 * np.mean(difference > 0):.1f} %</bdi>" in text
    downloads = json.loads(Parsed(text).texts["script"][0])["users.csv"].splitlines()
    assert downloads[0] == "user,difference to LightGCN + dns"
    written = {line.split(",")[0]: float(line.split(",")[1]) for line in downloads[1:]}
    assert [written[f"u{user}"] for user in range(60)] == pytest.approx(difference.tolist(), rel=1e-4, abs=1e-9)


def test_analyses_are_shown_where_they_lie_beside_the_result(tmp_path):
    file = write_run(tmp_path)
    values = [{"ndcg@10": {"value": 0.1 * place, "low": 0.09 * place, "high": 0.12 * place}} for place in (1, 2)]
    names = ("1-5", "6+")
    groups = [{"name": name, "size": 30, "weight": 0.5, "values": each} for name, each in zip(names, values, strict=True)]
    analysis = {
        "run_id": file.stem,
        "label": "HNLMLightGCN + dns",
        "groups": {"users": {"groups": groups}, "items": None},
        "training": {"hardness": {"difference": [-0.5, None, -0.4], "gradient": None, "gradient_share": [0.9, 0.8, 0.7]}},
        "semantic_negatives": {
            "nearest": {"1": {"held_out_share": 0.0125, "model_rank": {"median": 77.0}, "model_top": {"10": 0.25}}},
            "random": {"held_out_share": 0.001, "model_rank": None, "model_top": None},
        },
        "semantic_shift": {"distributions": {"negative_positive": {"mean": 0.3, "q05": -0.1, "q95": 0.6}}},
        "beyond_accuracy": {"itemcoverage@10": 0.25},
        "missing": {"shift": "no vectors were kept"},
    }
    folder = tmp_path / "analysis" / file.stem
    folder.mkdir(parents=True)
    (folder / "analysis.json").write_text(json.dumps(analysis))
    text = build_report(file, NO_USERS)
    assert "recbole-hnlm analyse" not in text
    for expected in (
        "By activity of users, NDCG@10",
        "6+",
        "0.2000",
        "Hardness",
        "Triples that teach",
        "itemcoverage@10",
        "no vectors were kept",
    ):
        assert expected in text
    for expected in ("Semantic shift", "1.250 %", ">77<", "25.00 %", "0.100 %"):
        assert expected in text
    (folder / "analysis.json").write_text(json.dumps({**analysis, "run_id": "another"}))
    with pytest.raises(ArtifactError, match="is no analysis of"):
        build_report(file, NO_USERS)


def test_groups_of_several_seeds_are_averaged():
    def analysis(seed, value):
        values = {"ndcg@10": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        groups = [{"name": "head", "size": 3, "weight": 1.0, "values": values}]
        return {"label": "A", "seed": seed, "groups": {"items": {"groups": groups}}, "beyond_accuracy": {"novelty@10": value}}

    (section,) = analysis_sections([analysis(1, 0.2), analysis(2, 0.5)], "", "ndcg@10", {"A": 0})
    tables = [block for block in section.blocks if isinstance(block, view.Table)]
    assert [[cell.text for cell in table.rows[0]][:4] for table in tables] == [
        ["head", "3", "100.0 %", "0.3500"],
        ["novelty@10", "0.35", "bits of surprise of a recommended item"],
    ]


def test_energy_that_codecarbon_measured_is_shown(tmp_path):
    file = write_run(tmp_path)
    rows = "duration,emissions,energy_consumed,country_name\n60,0.001,0.02,France\n30,0.0005,0.01,France\n"
    (tmp_path / "emissions.csv").write_text(rows)
    text = build_report(file, NO_USERS)
    assert all(part in text for part in ("0.03 kWh", "1.5 g", "1 min 30 s", "France"))
    (tmp_path / "emissions.csv").unlink()
    assert "codecarbon monitor --offline --country-iso-code=FRA -- recbole-hnlm run" in build_report(file, NO_USERS)


def test_a_search_shows_its_winner_and_what_it_reaches(pages):
    _, text = pages["search"]
    expected = (
        "learning_rate = 0.004, n_layers = 2 does best of 6 trials: NDCG@10 0.2200 on validation, +10.0 % against the median "
        "trial; on the test split it reaches 0.1900."
    )
    assert expected in text
    assert all(share in text for share in ("80% of the variance", ">80%<"))


def test_a_command_repeats_a_run_without_its_places():
    record = make_record(given={"data_path": "/d", "topk": [10, 20], "checkpoint_dir": "/c", "llm_model": "a b"})
    expected = (
        "recbole-hnlm run --model=HNLMLightGCN --dataset=toy --data_path=/d '--topk=[10, 20]' '--llm_model=a b' --seed=2020"
    )
    assert run_command(record) == expected
    assert not run_command({key: value for key, value in record.items() if key != "given"})


def test_a_figure_takes_its_colours_from_the_page_and_its_labels_as_text():
    lines = [Curve("a $x$ <b>", [[(1, 1.0), (2, 0.5)]]), Curve("c", [[(1, 0.8), (2, 0.4)]])]
    svg = str(curves("name", "Loss", "loss", lines, "caption").svg)
    assert "a $x$ &lt;b&gt;" in svg
    assert 'class="k-s0"' in svg
    assert "k-s1" in svg
    assert not re.search(r"style=|#[0-9a-f]{6}|<metadata|<style", svg)
    assert curves("name", "Loss", "loss", [Curve("a", [[]])], "caption") is None


def test_bad_input_is_one_line(tmp_path, capsys):
    damaged = write_run(tmp_path)
    damaged.write_text("{")
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other.json"
    other.write_text('{"run_id": "x"}')
    (tmp_path / "comparison").mkdir()
    folder = write_comparison(tmp_path / "comparison", METHODS)
    broken = next((folder / "cells").glob("*.npz"))
    broken.write_bytes(broken.read_bytes()[:-9])
    for place, words in {
        "nowhere": "does not exist",
        str(tmp_path / "empty"): "neither results.json",
        str(damaged): "is corrupt",
        str(other): "is not the record of a run",
        str(folder): "does not fit",
    }.items():
        assert main(["report", place, f"--out={tmp_path / 'r.html'}"]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert not (tmp_path / "r.html").exists()
    assert main(["report", str(folder), "--users=-1"]) == 2
    assert "expected 0 to 50" in capsys.readouterr().err


def test_sample_users_come_from_the_runs_own_data_and_model(workdir, tiny_keys, capsys):
    keys = [f"--{name}={value}" for name, value in tiny_keys.items()]
    assert main(["run", "--model=BPR", "--dataset=tiny", *keys, "--results_dir=results", "--report=page.html"]) == 0
    assert "report: page.html (" in capsys.readouterr().out
    result = read_result(next((workdir / "results").glob("*.json")))
    place = {"data_path": tiny_keys["data_path"]}
    samples = gather_samples(result.record, SampleOptions(3, place))
    assert len(samples.people) == 3
    for person in samples.people:
        history, held, recommended = person.lists
        own = {text for text, _ in history.items}
        chosen = dict(held.items)
        assert not own & {text for text, _ in recommended.items}
        assert set(chosen.values()) == {"validation", "test"}
        for text, mark in recommended.items:
            assert mark == (f"hit: {chosen[text]}" if text in chosen else "")
    assert [line.split(":")[0] for line in samples.missing] == [
        "The items' text could not be read",
        "What the LLM was told and said is not shown",
    ]
    assert any(mark for person in samples.people for _, mark in person.lists[2].items)
    text = (workdir / "page.html").read_text(encoding="utf-8")
    assert text.count('<details class="person"') == 4
    assert "BPR recommends" in text
    # Lists that a comparison kept take the place of the model's own: here every user gets items 1 and 2, in ids of the data.
    users = [person.name for person in samples.people]
    kept = {"A": (users, np.tile(np.array([[1, 2, 0]], dtype=np.int32), (3, 1))), "B": ([], np.zeros((0, 3), dtype=np.int32))}
    for person in gather_samples(result.record, SampleOptions(3, place), kept).people:
        first, second = person.lists[2:]
        assert (first.title, len(first.items), second.title, second.items) == ("A recommends", 2, "B recommends", [])
    missing = gather_samples(result.record, SampleOptions(3, {"data_path": "nowhere"}))
    assert not missing.people
    assert "could not be loaded" in missing.missing[0]


def _luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_of_both_schemes_have_the_contrast_that_wcag_asks_for(pages):
    style = re.search(r"<style>(.*?)</style>", pages["run"][1], flags=re.DOTALL)[1]
    schemes = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6});", scheme))
        for behind in ("back", "card", "soft"):
            for front, least in [
                *((name, 4.5) for name in ("ink", "faint", "link")),
                *((f"s{place}", 2.5) for place in range(10)),
            ]:
                light, dark = sorted((_luminance(colours[front]), _luminance(colours[behind])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= least, (front, behind)
        light, dark = sorted((_luminance(colours["mark-ink"]), _luminance(colours["mark"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
