"""Text of atomic files: every odd file that a dataset may bring."""

from __future__ import annotations

import pytest

from recbole_hnlm.data.atomic_text import clean_text, cut_text, read_item_texts, read_reviews, resolve_columns
from recbole_hnlm.utils.errors import DataError

GUESS = dict.fromkeys(("title", "categories", "city", "description"))
HEADER = "item_id:token\ttitle:token_seq\tcategories:token_seq\tcity:token\tdescription:token_seq\n"


def item_file(tmp_path, body, header=HEADER):
    path = tmp_path / "toy.item"
    path.write_bytes((header + body).encode() if isinstance(body, str) else header.encode() + body)
    return path


def read(path, wanted, named=GUESS, **options):
    return read_item_texts(path, item_id_field="item_id", named=named, wanted=set(wanted), **options)


def test_each_field_lands_in_its_place_and_other_items_are_passed_over(tmp_path):
    texts, report = read(item_file(tmp_path, "1\tTitle\tCats\tCity\tLong text\n2\tOther\t\t\t\n"), ["1"])
    assert list(texts) == ["1"]
    assert (texts["1"].title, texts["1"].categories, texts["1"].city, texts["1"].description) == (
        "Title",
        "Cats",
        "City",
        "Long text",
    )
    assert report.rows == 2


def test_quotes_are_text(tmp_path):
    texts, _ = read(item_file(tmp_path, '1\t"unbalanced\ta\tb\tc\n2\tsay "hi"\ta\tb\tc\n'), ["1", "2"])
    assert texts["1"].title == '"unbalanced'
    assert texts["2"].title == 'say "hi"'


@pytest.mark.parametrize("token", ["NA", "null", "None", "nan", "-", "0", " 1", "é", "[PAD]"])
def test_odd_tokens_are_tokens(tmp_path, token):
    texts, _ = read(item_file(tmp_path, f"{token}\tTitle of it\t\t\t\n"), [token])
    assert texts[token].title == "Title of it"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\r"])
def test_unicode_line_separators_do_not_split_lines(tmp_path, separator):
    texts, report = read(item_file(tmp_path, f"1\tone{separator}two\tc\t\td\n2\tnext\t\t\t\n"), ["1", "2"])
    assert texts["1"].title == "one two"
    assert texts["1"].description == "d"
    assert report.rows == 2


def test_scripts_and_emoji_survive(tmp_path):
    title = "שלום مرحبا 👩‍👩‍👧‍👦 é 日本語"
    texts, _ = read(item_file(tmp_path, f"1\t{title}\t\t\t\n"), ["1"])
    assert texts["1"].title == title


def test_short_long_and_duplicate_rows_are_counted_and_the_first_row_counts(tmp_path):
    body = "".join(f"{n}\tt{n}\tc\tx\td\n" for n in range(97)) + "a\tonly title\nb\tt\tc\tx\td\tsurplus\na\tagain\t\t\t\n"
    texts, report = read(item_file(tmp_path, body), ["a", "b", "absent"])
    assert (report.rows, report.short_rows, report.long_rows, report.duplicate_rows, report.without_row) == (100, 1, 1, 1, 1)
    assert texts["a"].title == "only title"
    assert not texts["a"].categories
    assert texts["b"].description == "d"
    assert "long_rows 1" in str(report)


def test_bad_bytes_are_replaced_and_counted(tmp_path):
    body = b"1\tcaf\xe9\t\t\t\n" + b"".join(b"%d\tx\t\t\t\n" % n for n in range(2, 42))
    texts, report = read(item_file(tmp_path, body), ["1"])
    assert texts["1"].title == "caf\ufffd"
    assert report.undecodable_rows == 1


def test_too_many_broken_rows_are_refused(tmp_path):
    path = item_file(tmp_path, "1\ta\tb\tc\td\te\n2\ta\tb\tc\td\n")
    with pytest.raises(DataError, match=r"1 of 2 rows have more fields.*field_separator"):
        read(path, ["1"])
    assert read(path, ["1"], max_broken_share=0.5)[1].long_rows == 1


def test_byte_order_mark_windows_ends_and_blank_lines(tmp_path):
    path = tmp_path / "toy.item"
    path.write_bytes(b"\xef\xbb\xbfitem_id:token\ttitle:token_seq\r\n1\tTitle\r\n\r\n2\tLast")
    texts, report = read(path, ["1", "2"])
    assert [texts["1"].title, texts["2"].title] == ["Title", "Last"]
    assert report.rows == 2


def test_missing_file_names_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"toy\.item does not exist.*--negative_route=none"):
        read(tmp_path / "toy.item", ["1"])


def test_named_column_that_is_absent_lists_those_that_exist(tmp_path):
    path = item_file(tmp_path, "1\tT\t\t\t\n")
    with pytest.raises(DataError, match=r"title_field is 'titel'.*item_id, title, .*, description; did you mean title\?"):
        read(path, ["1"], {**GUESS, "title": "titel"})


def test_file_without_any_text_column(tmp_path):
    with pytest.raises(DataError, match=r"no column that says what an item is \(columns: item_id, price\)"):
        read(item_file(tmp_path, "1\t2\n", "item_id:token\tprice:float\n"), ["1"])


def test_header_without_types_and_absent_id_column(tmp_path):
    with pytest.raises(DataError, match="has the field 'title', expected name:type"):
        read(item_file(tmp_path, "1\tT\n", "item_id:token\ttitle\n"), ["1"])
    with pytest.raises(DataError, match=r"no column 'item_id'; its columns are asin, title"):
        read(item_file(tmp_path, "1\tT\n", "asin:token\ttitle:token_seq\n"), ["1"])


def test_ids_that_never_match_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none of its 1 rows has an item.*'7'"):
        read(item_file(tmp_path, '"7"\tT\t\t\t\n'), ["7"])


def test_guesses_ignore_case_and_prefer_the_first_name(tmp_path):
    resolved = resolve_columns(
        ["item_id", "Genres", "class", "Movie_Title", "name"], {"title": None, "categories": None}, tmp_path
    )
    assert resolved == {"title": "name", "categories": "class"}


def test_clean_text_collapses_what_separates_and_keeps_what_joins():
    assert clean_text(" a\x00b\t c\u2028d\x7fe ") == "a b c d e"
    assert clean_text("\u200f\u05d0\u200d") == "\u200f\u05d0\u200d"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abcdef", 3, "abc"),
        ("abc", 3, "abc"),
        ("ae\u0301x", 2, "a"),  # the accent belongs to the e
        ("a👩\u200d👧b", 2, "a"),  # joined emoji
        ("a👩\u200d👧b", 4, "a👩\u200d👧"),
        ("a👍🏽b", 2, "a"),  # skin tone
        ("🇩🇪🇫🇷", 3, "🇩🇪"),  # half a flag
        ("🇩🇪🇫🇷", 2, "🇩🇪"),
        ("e\u0301\u0302\u0303", 2, "e\u0301"),  # one visible character that is too long by itself
        ("word next", 5, "word"),
    ],
)
def test_cut_text(text, limit, expected):
    assert cut_text(text, limit) == expected


def test_cutting_a_long_text_costs_no_more_than_its_cut():
    assert cut_text("x" * 50_000, 200) == "x" * 200


INTER = "user_id:token\titem_id:token\trating:float\treview:token_seq\n"


def reviews_of(tmp_path, body, wanted, header=INTER, named=None):
    path = tmp_path / "toy.inter"
    path.write_text(header + body, encoding="utf-8", newline="")
    return read_reviews(path, user_id_field="user_id", item_id_field="item_id", named=named, wanted=wanted)


def test_reviews_of_training_pairs_alone(tmp_path):
    body = "u\ti\t5\tgreat\nu\tj\t5\theld out\nv\ti\t3\tmeh\nv\tk\t1\t\n"
    reviews, report = reviews_of(tmp_path, body, {("u", "i"): 1, ("v", "k"): 1})
    assert reviews == {("u", "i"): "great"}
    assert report.rows == 4


def test_a_pair_that_is_also_held_out_shows_no_review(tmp_path):
    body = "u\ti\t5\tfirst\nu\ti\t5\tsecond\nv\ti\t5\tone\nv\ti\t5\ttwo\n"
    reviews, report = reviews_of(tmp_path, body, {("u", "i"): 1, ("v", "i"): 2})
    assert reviews == {("v", "i"): "one"}
    assert (report.ambiguous, report.duplicate_rows) == (1, 2)


def test_a_50000_character_review_survives(tmp_path):
    long = "word " * 10_000
    reviews, _ = reviews_of(tmp_path, f"u\ti\t5\t{long}\n", {("u", "i"): 1})
    assert reviews["u", "i"] == long.strip()


def test_no_review_column_means_no_reviews_unless_one_is_named(tmp_path):
    header = "user_id:token\titem_id:token\n"
    assert reviews_of(tmp_path, "u\ti\n", {("u", "i"): 1}, header)[0] == {}
    with pytest.raises(DataError, match=r"review_field is 'text'.*user_id, item_id"):
        reviews_of(tmp_path, "u\ti\n", {("u", "i"): 1}, header, named="text")
