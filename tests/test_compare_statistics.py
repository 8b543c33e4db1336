"""The comparison's statistics and tables, with values derived by hand."""

import csv
import io
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from recbole_hnlm.evaluator.statistics import holm, mean_std, paired_test
from recbole_hnlm.experiments.cells import Cell
from recbole_hnlm.experiments.methods import Method
from recbole_hnlm.experiments.picture import draw_table
from recbole_hnlm.experiments.store import FinishedCell
from recbole_hnlm.experiments.summary import summarise
from recbole_hnlm.experiments.tables import csv_table, escape_latex, latex_table, markdown_table, p_text
from recbole_hnlm.utils.errors import DataError

# --- pure statistics -----------------------------------------------------------------------------------------------------


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # Ascending: .01 * 3 = .03, .03 * 2 = .06, .04 * 1 = .04 which may not be below .06. None is no part of the family.
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_std_divides_by_n_minus_1():
    assert mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_std([4.0]) == (4.0, None)


def test_a_paired_test_by_hand():
    # Differences 1, 2, 3, -4: mean .5; sum of squares about it .25 + 2.25 + 6.25 + 20.25 = 29, so sd = sqrt(29 / 3).
    test = paired_test([1, 2, 3, 0], [0, 0, 0, 4])
    assert test.difference == 0.5
    assert test.d_z == pytest.approx(0.5 / math.sqrt(29 / 3))
    # t = sqrt(n) d_z with n - 1 degrees of freedom.
    assert test.t_p == pytest.approx(2 * stats.t.sf(2 * test.d_z, 3))
    # Ranks 1, 2, 3 for, 4 against: (6 - 4) / 10. Of the 16 sign patterns those with R- <= 4 are {}, {1}, {2}, {3}, {1,2},
    # {4}, {1,3}: 7, so p = 2 * 7 / 16.
    assert test.rank_biserial == pytest.approx(0.2)
    assert test.wilcoxon_p == pytest.approx(14 / 16)


def test_the_sign_follows_the_first_and_p_is_symmetric():
    rng = np.random.default_rng(3)
    one, other = rng.normal(0.4, 1, 30), rng.normal(0, 1, 30)
    there, back = paired_test(one, other), paired_test(other, one)
    assert there.difference > 0
    assert (there.difference, there.d_z, there.rank_biserial) == pytest.approx(
        (-back.difference, -back.d_z, -back.rank_biserial)
    )
    assert (there.t_p, there.wilcoxon_p) == pytest.approx((back.t_p, back.wilcoxon_p))


def test_tied_differences_are_enumerated_and_stay_at_the_bound_of_five_seeds():
    # Five equal gains: 2 of the 32 sign patterns are as extreme. The normal approximation would say .025.
    test = paired_test([1.0, 1.0, 1.0, 1.0, 1.0], [0.0] * 5)
    assert test.wilcoxon_p == pytest.approx(2 / 32)
    assert (test.t_p, test.d_z, test.rank_biserial) == (0.0, None, 1.0)
    # Differences 1, 1, -1: ranks 2, 2, 2; as few minus signs or fewer: 1 + 3 of 8, doubled and cut at 1.
    assert paired_test([1, 1, 0], [0, 0, 1]).wilcoxon_p == 1.0


@pytest.mark.parametrize(("count", "least"), [(2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_fewer_than_six_seeds_cannot_reach_five_percent(count, least):
    assert paired_test(np.arange(1, count + 1), np.zeros(count)).wilcoxon_p == pytest.approx(least)


def test_equal_methods_have_p_1_and_one_pair_has_none():
    same = paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.1 + 0.2])
    assert (same.difference, same.t_p, same.wilcoxon_p, same.d_z, same.rank_biserial) == (0.0, 1.0, 1.0, 0.0, 0.0)
    one = paired_test([0.3], [0.2])
    assert (one.n, one.t_p, one.wilcoxon_p, one.d_z, one.rank_biserial) == (1, None, None, None, None)
    assert one.difference == pytest.approx(0.1)
    with pytest.raises(ValueError, match="equally long"):
        paired_test([1, 2], [1])


def test_zeros_leave_wilcoxon_but_not_t():
    test = paired_test([1, 2, 3, 0, 0], [0, 0, 0, 0, 0])
    assert test.wilcoxon_p == pytest.approx(2 / 8)
    assert (test.n, test.difference) == (5, 1.2)


def test_many_users_agree_with_scipy():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 5, 400) / 4, rng.integers(0, 5, 400) / 4
    assert paired_test(one, other).wilcoxon_p == pytest.approx(stats.wilcoxon(one - other, method="approx").pvalue)
    assert paired_test(one, other).t_p == pytest.approx(stats.ttest_rel(one, other).pvalue)


# --- from cells to rows ----------------------------------------------------------------------------------------------------

USERS = np.array([f"u{user}" for user in range(8)])


ROLES = {"HNLM": "hnlm", "RLMR": "rival"}


def finished(model, sampler, seed, values, *, split_seed=1, users=USERS, **record):
    method = Method(model, sampler, model, role=ROLES.get(model[:4], "baseline"))
    cell = Cell(f"{model}-{sampler}-s{seed}-x", method, seed, split_seed, {}, "a_b", ())
    described = {
        "dataset": "a_b",
        "version": "1",
        "epoch_seconds": [9.0, 1.0, 2.0],
        "split_fingerprint": "f",
        "cells_at_once": 1,
        "best_valid_score": float(np.mean(values)),
    }
    return FinishedCell(cell, {**described, **record}, users, {"ndcg@5": np.asarray(values, dtype=np.float32)})


def constant(value):
    return np.full(8, value)


def rising(value):
    return value + np.arange(8) / 100


def three_methods(seeds=(1, 2)):
    cells = []
    for step, seed in enumerate(seeds):
        cells += [
            finished("LightGCN", "uniform", seed, constant(0.25)),
            finished("LightGCN", "dns", seed, constant(0.5)),
            finished("HNLMLightGCN", "dns", seed, rising(0.5 + 0.25 * step)),
        ]
    return cells


def test_hnlm_methods_are_tested_against_the_strongest_baseline_alone():
    uniform, dns, hnlm = summarise(three_methods()).rows["ndcg@5"]
    assert [row.is_reference for row in (uniform, dns, hnlm)] == [False, True, False]
    assert (uniform.comparison, dns.comparison, dns.improvement) == (None, None, None)
    assert (uniform.improvement, hnlm.is_best) == (-0.5, True)
    # Means .535 and .785: mean .66, sd .25 / sqrt(2); .66 / .5 - 1 = .32.
    assert (hnlm.mean, hnlm.std, hnlm.improvement) == pytest.approx((0.66, 0.25 / math.sqrt(2), 0.32), rel=1e-6)
    # Each user's values averaged over the seeds are .625 + i / 100.
    assert hnlm.comparison.over_users.difference == pytest.approx(0.16, rel=1e-6)
    assert hnlm.comparison.over_users.n == 8
    assert hnlm.comparison.over_seeds.n == 2
    # One comparison: Holm changes nothing. All 8 users gain: 2 / 2^8.
    assert hnlm.comparison.adjusted["users_wilcoxon"] == pytest.approx(2 / 256)
    assert hnlm.epoch_seconds == 2.0


def test_the_reference_is_the_best_on_validation_and_not_on_test():
    cells = [
        finished("LightGCN", "uniform", 1, constant(0.25), best_valid_score=0.3),
        finished("LightGCN", "uniform", 2, constant(0.25), best_valid_score=0.5),
        finished("LightGCN", "dns", 1, constant(0.5), best_valid_score=0.35),
        finished("LightGCN", "dns", 2, constant(0.5), best_valid_score=0.35),
        finished("HNLMLightGCN", "dns", 1, rising(0.4), best_valid_score=0.2),
    ]
    table = summarise(cells)
    uniform, dns, hnlm = table.rows["ndcg@5"]
    assert [row.is_reference for row in (uniform, dns, hnlm)] == [True, False, False]
    assert [row.is_best for row in (uniform, dns, hnlm)] == [False, True, False]
    assert hnlm.improvement == pytest.approx(0.435 / 0.25 - 1, rel=1e-6)
    assert "LightGCN + uniform is the strongest baseline on validation, and a reference." in table.notes


def test_equal_validation_scores_take_the_first_row():
    cells = [finished("A", None, 1, rising(base), best_valid_score=0.5) for base in (0.1,)]
    cells += [finished("B", None, 1, rising(0.4), best_valid_score=0.5), finished("HNLMBPR", None, 1, rising(0.5))]
    assert [row.label for row in summarise(cells).rows["ndcg@5"] if row.is_reference] == ["A"]
    assert [row.label for row in summarise(cells[::-1]).rows["ndcg@5"] if row.is_reference] == ["B"]


def test_hnlm_methods_are_tested_against_the_strongest_rival_too():
    cells = [
        finished("LightGCN", "dns", 1, constant(0.25)),
        finished("RLMRecConLightGCN", "dns", 1, rising(0.3), best_valid_score=0.1),
        finished("RLMRecGenLightGCN", "dns", 1, rising(0.2), best_valid_score=0.4),
        finished("HNLMLightGCN", "dns", 1, rising(0.5)),
    ]
    table = summarise(cells)
    # Rivals and HNLM rows against the baseline: three comparisons. The HNLM row against the rival: one.
    assert [row.comparison is not None for row in table.rows["ndcg@5"]] == [False, True, True, True]
    rival, hnlm = table.rival_rows["ndcg@5"]
    assert (rival.label, rival.is_reference, rival.comparison) == ("RLMRecGenLightGCN + dns", True, None)
    assert hnlm.comparison.over_users.difference == pytest.approx(0.3, rel=1e-5)
    assert hnlm.comparison.adjusted["users_wilcoxon"] == pytest.approx(2 / 256)
    assert [row.role for row in table.rows["ndcg@5"]] == ["baseline", "rival", "rival", "hnlm"]
    text = markdown_table(table)
    assert "1 seed, against the strongest rival" in text
    lines = list(csv.DictReader(io.StringIO(csv_table(table))))
    assert [line["against"] for line in lines] == ["LightGCN + dns"] * 4 + ["RLMRecGenLightGCN + dns"] * 2
    assert latex_table(table).count(r"\begin{table*}") == 2
    # Without a baseline the rival is the only reference.
    without = summarise(cells[1:])
    assert [row.label for row in without.rows["ndcg@5"] if row.is_reference] == ["RLMRecGenLightGCN + dns"]
    assert without.rival_rows == {}


def test_rows_without_a_validation_score_are_no_reference():
    cells = [finished("A", None, 1, rising(0.4), best_valid_score=None), finished("HNLMBPR", None, 1, rising(0.5))]
    table = summarise(cells)
    assert not any(row.is_reference or row.comparison for row in table.rows["ndcg@5"])
    assert "No baseline was evaluated on validation, so that none can be the reference: set eval_step." in table.notes
    assert "| A | 0.4350 | n/a |" in markdown_table(table)
    cells.append(finished("B", None, 1, rising(0.1)))
    assert [row.label for row in summarise(cells).rows["ndcg@5"] if row.is_reference] == ["B"]


def test_without_hnlm_methods_the_best_is_tested_against_each_other():
    cells = [finished(name, None, 1, rising(base)) for name, base in (("A", 0.1), ("B", 0.4), ("C", 0.2))]
    rows = summarise(cells).rows["ndcg@5"]
    assert [row.comparison is not None for row in rows] == [True, False, True]
    assert rows[0].comparison.over_users.difference == pytest.approx(-0.3, rel=1e-6)
    assert rows[0].comparison.over_seeds.t_p is None


def test_holm_runs_over_the_comparisons_of_a_metric():
    cells = [finished("BPR", "dns", 1, constant(0.1))]
    cells += [finished("HNLMBPR", name, 1, rising(0.2)) for name in ("uniform", "dns", "mixgcf")]
    rows = summarise(cells).rows["ndcg@5"]
    raw, adjusted = rows[1].comparison.over_users.wilcoxon_p, rows[1].comparison.adjusted["users_wilcoxon"]
    assert (raw, adjusted) == pytest.approx((2 / 256, 6 / 256))


def test_a_missing_seed_leaves_the_pairs_that_both_have():
    table = summarise(three_methods()[:-1])
    hnlm = table.rows["ndcg@5"][2]
    assert (hnlm.seeds, hnlm.comparison.over_seeds.n) == ([1], 1)
    assert any("different numbers of seeds" in note for note in table.notes)


@pytest.mark.parametrize(
    ("seeds", "said"), [((1,), "With one seed"), ((1, 2, 3, 4, 5), "with 5 its smallest p is 0.0625"), (range(6), None)]
)
def test_the_notes_say_what_few_seeds_can_show(seeds, said):
    reference, *notes = summarise(three_methods(seeds)).notes
    assert reference.startswith("LightGCN + dns is the strongest baseline")
    assert notes == [] if said is None else said in notes[0]


def test_splits_that_vary_average_a_user_over_the_seeds_that_test_it():
    later = np.array([*USERS[:4], "u8", "u9", "u10", "u11"])
    cells = []
    for model, gain in (("BPR", 0.0), ("HNLMBPR", 0.25)):
        cells.append(finished(model, "dns", 1, constant(0.25 + gain), split_seed=1))
        cells.append(finished(model, "dns", 2, constant(0.5 + gain), split_seed=2, users=later, split_fingerprint="g"))
    table = summarise(cells)
    assert table.rows["ndcg@5"][1].comparison.over_users.n == 12
    assert table.rows["ndcg@5"][1].comparison.over_users.difference == pytest.approx(0.25)
    assert "2 splits of the data" in table.notes[1]


@pytest.mark.parametrize("changed", [{"split_fingerprint": "other"}, {"users": USERS[::-1]}])
def test_cells_of_other_data_are_refused(changed):
    cells = [finished("BPR", "dns", 1, constant(0.1)), finished("BPR", "uniform", 1, constant(0.1), **changed)]
    with pytest.raises(DataError, match=r"BPR-dns-s1-x and BPR-uniform-s1-x were run on different data"):
        summarise(cells)


# --- tables ----------------------------------------------------------------------------------------------------------------


def test_p_values_in_words():
    assert [p_text(p) for p in (None, 0.00001, 0.0123456, 1.0)] == ["n/a", "<1e-4", "0.0123", "1"]


def test_markdown_has_equal_columns_and_one_bold_row():
    text = markdown_table(summarise(three_methods()))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(a.replace("\\|", "").count("|") == b.replace("\\|", "").count("|") for a, b in pairwise(lines))
    assert lines[-1].startswith("| HNLMLightGCN + dns | **0.6600 ± 0.1768** | +32.00 % | 0.00781 / <1e-4 |")
    assert text.count("**") == 2
    assert "| LightGCN + dns | 0.5000 ± 0.0000 | \\* |" in text
    assert "NDCG@5 on a_b, test split, 8 users, 2 seeds" in text


def test_false_negatives_have_a_column_where_a_row_counted_them():
    cells = [
        finished("LightGCN", "dns", 1, constant(0.25), false_negative_rates=[0.01, 0.03]),
        finished("LightGCN", "dns", 2, constant(0.25), false_negative_rates=[0.06]),
        finished("Pop", None, 1, constant(0.1), false_negative_rates=None),
    ]
    table = summarise(cells, chosen={"LightGCN + dns": "a=1"})
    head, _, dns, pop = [line for line in markdown_table(table).splitlines() if line.startswith("|")]
    assert head.endswith("| s / epoch | FN % | chosen |")
    assert dns.endswith("| 4.000 | a=1 |")
    assert pop.endswith("| n/a | n/a |")
    assert any(note.startswith("FN %: ") for note in table.notes)
    assert "FN %" not in markdown_table(summarise(three_methods()))


def test_latex_escapes_and_balances():
    assert escape_latex("a_b & 5% $ # {x} ~ ^ \\ <>") == (
        r"a\_b \& 5\% \$ \# \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{}\textgreater{}"
    )
    text = latex_table(summarise(three_methods()))
    assert r"HNLMLightGCN + dns & \textbf{0.6600 $\pm$ 0.1768} & +32.00 \% & 0.00781 / \textless{}1e-4" in text
    assert r"LightGCN + uniform & 0.2500 $\pm$ 0.0000 & $-$50.00 \% &" in text
    assert r"NDCG@5 on a\_b" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert {line.count(" & ") for line in rows} == {7}


def test_csv_holds_raw_and_corrected_p():
    cells = [finished("BPR", "dns", 1, constant(0.1))]
    cells += [finished("HNLMBPR", name, 1, rising(0.2)) for name in ("uniform", "dns")]
    base, first, _ = csv.DictReader(io.StringIO(csv_table(summarise(cells))))
    assert (base["users_wilcoxon_p"], base["against"], base["std"]) == ("", "BPR + dns", "")
    assert float(first["users_wilcoxon_p"]) == pytest.approx(2 / 256)
    assert float(first["users_wilcoxon_p_holm"]) == pytest.approx(4 / 256)
    assert (first["seeds_n"], first["seeds_t_p"], first["metric"]) == ("1", "", "ndcg@5")
    assert float(first["users_n"]) == 8


def test_the_picture_is_a_png_of_every_method(tmp_path):
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    draw_table(summarise(three_methods()), few)
    draw_table(summarise([finished(f"M{place}", None, 1, rising(0.1)) for place in range(12)]), many)
    heights = [int.from_bytes(path.read_bytes()[20:24], "big") for path in (few, many)]
    assert few.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert heights[1] > heights[0]
