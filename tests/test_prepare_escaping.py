"""What is written is what RecBole and our own reader read."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES
from prepare_kit import META, REVIEWS, convert
from recbole.data.dataset import Dataset

from recbole_hnlm.config import Config
from recbole_hnlm.data.atomic_text import clean_text, read_item_texts, read_reviews
from recbole_hnlm.prepare.escaping import (
    MAX_TEXT_CHARS,
    MISSING_WORDS,
    RecordError,
    id_cell,
    number_cell,
    seconds_cell,
    strip_markup,
    text_cell,
)

UGLY_TEXTS = {
    '"Unbalanced at the start': '"Unbalanced at the start',
    '"Balanced"': '"Balanced"',
    '""': '""',
    'in the "middle" of it': 'in the "middle" of it',
    "tab\tnew\nline\r\nreturn\rnull\x00end": "tab new line return null end",
    "unicode\u2028line\u2029and\x85separators\x0b\x0c": "unicode line and separators",
    "Tom &amp; Jerry&#39;s &quot;best&quot;": 'Tom & Jerry\'s "best"',
    "&quot;quoted&quot; by entities": '"quoted" by entities',
    "a<br />b <b>bold</b> 1 < 2 > 0 <3": "a b bold 1 < 2 > 0 <3",
    "NA": "NA",
    "null": "null",
    "None": "None",
    "#N/A N/A": "#N/A N/A",
    "'single' \\ backslash \\n": "'single' \\ backslash \\n",
    "שלום 👩‍👩‍👧 日本語\u3000é": "שלום 👩‍👩‍👧 日本語 é",
    "  spaces   around  ": "spaces around",
    "&nbsp;&#9;": "",
    "": "",
    "# no comment": "# no comment",
}


def read_both(folder, items, users):
    """Texts by item and reviews by user as RecBole reads them, and as our reader does."""
    config = Config(
        "BPR",
        "made",
        config_dict={"data_path": str(folder / "out"), "load_col": None, "eval_args": {"order": "TO"}, "show_progress": False},
    )
    dataset = Dataset(config)
    their_items = {}
    for row in range(1, dataset.item_num):
        words = dataset.id2token("title", dataset.item_feat["title"][row])
        their_items[dataset.id2token("item_id", row)] = " ".join(word for word in words if word != "[PAD]")
    their_reviews = {}
    for user, words in zip(dataset.inter_feat["user_id"], dataset.inter_feat["review"], strict=True):
        text = " ".join(word for word in dataset.id2token("review", words) if word != "[PAD]")
        their_reviews[dataset.id2token("user_id", user)] = text
    made = folder / "out" / "made"
    texts, _ = read_item_texts(
        made / "made.item", item_id_field="item_id", named={"title": "title"}, wanted=set(items), max_broken_share=0
    )
    pairs = dict.fromkeys(zip(users, items, strict=True), 1)
    ours, _ = read_reviews(
        made / "made.inter", user_id_field="user_id", item_id_field="item_id", named="review", wanted=pairs, max_broken_share=0
    )
    return their_items, their_reviews, {item: text.title for item, text in texts.items()}, ours


def test_ugly_texts_come_back_alike_from_both_readers(tmp_path):
    users, items = ([f"{kind}{number}" for number in range(len(UGLY_TEXTS))] for kind in ("user", "item"))
    reviews = [
        {**REVIEWS["yelp"], "user_id": user, "business_id": item, "text": text}
        for user, item, text in zip(users, items, UGLY_TEXTS, strict=True)
    ]
    meta = [{**META["yelp"], "business_id": item, "name": text} for item, text in zip(items, UGLY_TEXTS, strict=True)]
    report = convert(tmp_path, "yelp", reviews, meta, with_reviews=True)
    assert report.interactions == report.items == len(UGLY_TEXTS)
    their_items, their_reviews, our_items, our_reviews = read_both(tmp_path, items, users)
    assert their_items == our_items == dict(zip(items, UGLY_TEXTS.values(), strict=True))
    assert their_reviews == dict(zip(users, UGLY_TEXTS.values(), strict=True))
    read = {pair: text for pair, text in zip(zip(users, items, strict=True), UGLY_TEXTS.values(), strict=True) if text}
    assert our_reviews == read


ODD_IDS = [
    "NA",
    "null",
    "None",
    "nan",
    "NA_",
    "007",
    "1e5",
    "True",
    "a b",
    " lead",
    'mid"dle',
    "x\u2028y",
    "é",
    "-",
    "#N/A",
    "[PAD]",
]


def test_odd_ids_lose_no_row_and_stay_distinct_in_both_readers(tmp_path):
    reviews = [{**REVIEWS["yelp"], "user_id": token, "business_id": token} for token in ODD_IDS]
    convert(tmp_path, "yelp", reviews, [{**META["yelp"], "business_id": token} for token in ODD_IDS], with_reviews=True)
    written = [id_cell(token) for token in ODD_IDS]
    their_items, their_reviews, our_items, our_reviews = read_both(tmp_path, written, written)
    assert set(their_items) == set(their_reviews) == set(our_items) == set(written)
    assert len(our_reviews) == len(ODD_IDS)
    assert set(their_items.values()) == {"Garaje"}


def test_the_mark_of_missing_words_is_reversible():
    assert [id_cell(token) for token in ("NA", "NA_", "null", "nullo", "_", "A1")] == [
        "NA_",
        "NA__",
        "null_",
        "nullo",
        "_",
        "A1",
    ]
    tokens = [f"{word}{'_' * count}" for word in MISSING_WORDS if word for count in range(3)]
    cells = [id_cell(token) for token in tokens]
    assert len(set(cells)) == len(tokens)
    assert not MISSING_WORDS & set(cells)
    assert [cell.removesuffix("_") for cell in cells] == tokens


def test_the_words_are_those_of_pandas():
    assert frozenset(STR_NA_VALUES) | {"[PAD]"} == MISSING_WORDS


@pytest.mark.parametrize("bad", [None, "", True, 1.5, ["a"], '"quoted"', "tab\there", "new\nline", "nul\x00", "\r"])
def test_ids_that_no_atomic_file_can_hold_are_refused(bad):
    with pytest.raises(RecordError, match="id"):
        id_cell(bad)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_any_text_reads_back_in_our_reader_and_in_the_parser_that_recbole_uses(tmp_path_factory, text):
    cell = text_cell(text)
    expected = clean_text(strip_markup(text))
    assert clean_text(cell) == expected
    path = tmp_path_factory.getbasetemp() / "any.item"
    path.write_bytes(f"item_id:token\ttitle:token_seq\nfirst\t{cell}\nlast\tend\n".encode())
    frame = pd.read_csv(path, delimiter="\t", dtype=str, engine="python", encoding="utf-8")
    words = [list(filter(None, title.split(" "))) for title in frame["title:token_seq"].fillna("")]
    assert words == [list(filter(None, expected.split(" "))), ["end"]]


def test_a_text_beyond_what_pythons_csv_module_takes_is_cut(tmp_path):
    text = "word " * 40_000
    assert len(text_cell(text)) <= MAX_TEXT_CHARS
    convert(tmp_path, "yelp", [{**REVIEWS["yelp"], "text": text}], [META["yelp"]], with_reviews=True)
    _, theirs, _, _ = read_both(tmp_path, [META["yelp"]["business_id"]], [REVIEWS["yelp"]["user_id"]])
    assert theirs[REVIEWS["yelp"]["user_id"]] == ("word " * 26_200).strip()  # 131,000 characters


@pytest.mark.parametrize(("value", "cell"), [(5.0, "5"), (4, "4"), (4.5, "4.5"), (0.1, "0.1"), (10, "10"), (-3.25, "-3.25")])
def test_numbers(value, cell):
    assert number_cell(value) == cell


@pytest.mark.parametrize("value", [None, "5", True, float("nan"), float("inf"), [5]])
def test_what_is_no_rating(value):
    with pytest.raises(RecordError, match="a rating that is not a number"):
        number_cell(value)


@pytest.mark.parametrize(
    ("value", "cell"), [(0, "0"), (1500000000, "1500000000"), (1634275259.292, "1634275259.292"), (1600000000.0, "1600000000")]
)
def test_times(value, cell):
    assert seconds_cell(value) == cell


@pytest.mark.parametrize("value", [None, "1500000000", True, -1, 1634275259292, float("nan")])
def test_what_is_no_time(value):
    with pytest.raises(RecordError, match="between 1970 and 2100"):
        seconds_cell(value)
