"""A column of cells is what each value gives by itself."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prepare_kit import META, REVIEWS, convert, rows_of

from recbole_hnlm.prepare import columns
from recbole_hnlm.prepare.columns import id_cells, number_cells, seconds_cells, text_cells
from recbole_hnlm.prepare.escaping import (
    MAX_TEXT_CHARS,
    MISSING_WORDS,
    RecordError,
    id_cell,
    number_cell,
    seconds_cell,
    text_cell,
)
from recbole_hnlm.prepare.seen import SeenPairs
from recbole_hnlm.prepare.source import joined, review_reader

LONG = "A2SUAM1J3GNN3B"
MANY = settings(max_examples=300, deadline=None)
WORDS = sorted(MISSING_WORDS)
# Short alphabets, so that the cases that matter meet in one column.
PIECES = st.sampled_from(
    [" ", "  ", "a", "word", '"', "&amp;", "&", "<br>", "<3", "\x00", "\t", "\n", "\x1f", "\x7f", "~", "é", "日"]
)
TEXTS = st.lists(PIECES, max_size=6).map("".join) | st.sampled_from(WORDS)
IDS = st.lists(st.sampled_from([LONG, "_", "________", "a b", '"', "é", "\x00", "7"]), max_size=3).map("".join)
MARKED = st.builds(lambda word, count: word + "_" * count, st.sampled_from(WORDS), st.integers(0, 16))


def one_by_one(cell, values):
    """The cells, or the message of the first value that has none."""
    try:
        return [cell(value) for value in values]
    except RecordError as error:
        return str(error)


def at_once(cells, values):
    try:
        return cells(values)
    except RecordError as error:
        return str(error)


@MANY
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_texts(values):
    assert text_cells(values) == one_by_one(text_cell, values)


def test_texts_that_can_be_written_as_they_are_are_not_looked_at_one_by_one(monkeypatch):
    seen = []
    monkeypatch.setattr(columns, "text_cell", lambda text: seen.append(text) or "mended")
    plain = ["A great toy.", "It's 5 > 3 {ok}", "x" * MAX_TEXT_CHARS, "null and void"]
    odd = [
        "two  spaces",
        " lead",
        "trail ",
        '"quoted',
        "a&amp;b",
        "a<br>b",
        "tab\tbed it",
        "résumé of it",
        "null",
        "",
        "y" * 131_001,
    ]
    assert text_cells([*plain, *odd, *plain]) == [*plain, *["mended"] * len(odd), *plain]
    assert seen == odd
    seen.clear()
    assert text_cells(["a\x00text", "plain text"]) == ["mended", "mended"]  # places cannot be told by their separators


@MANY
@given(st.lists(IDS | MARKED | st.sampled_from([5, None, 1.5, True]), min_size=1, max_size=4))
@example([LONG, "1.#QNAN" + "_" * 7])
@example(["#N/A N/A_"])
def test_ids(values):
    assert at_once(id_cells, values) == one_by_one(id_cell, values)


@MANY
@given(
    st.lists(
        st.floats() | st.integers() | st.sampled_from([5.0, 4, 0.5, True, False, None, "5", [5], {}]), min_size=1, max_size=4
    )
)
@example([-0.0, 5])
@example([True, 1.0])
@example([math.inf])
def test_ratings(values):
    assert at_once(number_cells, values) == one_by_one(number_cell, values)


@MANY
@given(st.lists(st.integers(-5, 4_102_444_805) | st.floats(-1, 5e9) | st.sampled_from([True, None, "5", math.nan]), min_size=1))
@example([4_102_444_799])
@example([4_102_444_800])
@example([-1])
def test_times(values):
    assert at_once(seconds_cells, values) == one_by_one(seconds_cell, values)


def test_one_bad_value_leaves_the_other_records_as_they_are(tmp_path):
    good, odd = REVIEWS["amazon2018"], {**REVIEWS["amazon2018"], "reviewText": [" in ", None, "parts &amp; all"]}
    bad = [{**good, "overall": "5"}, {**good, "unixReviewTime": -1}, {**good, "asin": ""}, {"reviewText": "alone"}, ["list"]]
    records = [good, bad[0], odd, *bad[1:], good]
    report = convert(tmp_path, "amazon2018", records, [META["amazon2018"]], with_reviews=True, max_broken_share=0.7)
    cells = ["AUI6WTTT0QZYS", "5120053084", "5", "1514764800"]
    text = "I now have 4 of the 5 available colors of this shirt..."
    assert rows_of(tmp_path, "inter")[1:] == [[*cells, text], [*cells, "in parts & all"], [*cells, text]]
    assert dict(report.reviews.incomplete) == {
        "a rating that is not a number": 1,
        "a time that is not a number of seconds between 1970 and 2100": 1,
        "an empty id": 1,
        "no field 'reviewerID'": 1,
    }
    assert report.reviews.unreadable == 1


def test_a_review_without_text_has_an_empty_one():
    read = review_reader(user="u", item="i", rating="r", time="t", text="x")
    record = {"u": LONG, "i": LONG, "r": 4.5, "t": 7}
    assert list(map(list, read([record, {**record, "x": None}, {**record, "x": "text"}]))) == [
        [LONG] * 3,
        [LONG] * 3,
        ["4.5"] * 3,
        ["7"] * 3,
        ["", "", "text"],
    ]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["Toys", " Toys ", "", "Dolls"], "Toys, Dolls"),
        ([["Toys", "Dolls"], ["Toys", "Cars"]], "Toys, Dolls, Cars"),
        (["Toys", ["Dolls", 5], None], "Toys, Dolls"),
        (" Mexican, Burgers ", "Mexican, Burgers"),
        ([], ""),
        (None, ""),
    ],
)
def test_categories(names, text):
    assert joined(names) == text


def test_items_keep_the_index_of_their_first_appearance_over_blocks():
    seen = SeenPairs()
    seen.extend(["u1", "u2", "u1"], ["b", "a", "b"])
    seen.extend(["u1", "u3"], ["a", "b"])  # nothing new
    seen.extend(["u1", "u1"], ["c", "a"])
    assert seen.items == {"b": 0, "a": 1, "c": 2}
    # u1-b, u2-a, u1-a, u3-b, u1-c: 7 interactions less two repeated ones
    assert (len(seen), seen.distinct()) == (7, (3, 5))
