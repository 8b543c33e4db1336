"""Real Amazon 2023 reviews through the converter and both readers."""

import html
import json
import os
from pathlib import Path

import pytest
from prepare_kit import convert, rows_of
from recbole.data.dataset import Dataset

from recbole_hnlm.config import Config
from recbole_hnlm.data.atomic_text import clean_text, read_reviews

DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FOLDER = Path(os.environ.get("RECBOLE_HNLM_DATA", str(DEFAULT_DATA))) / "raw" / "amazon2023-reviews"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real records in {FOLDER}; set RECBOLE_HNLM_DATA to the data folder"),
]


def published_records():
    """The records in their published form: reviews and products apart, a line each."""
    reviews, meta = [], []
    for path in sorted(FOLDER.glob("*.jsonl")):
        for user in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            for entry in user["history"]:
                product = entry["product"] or {}
                reviews.append(
                    {
                        "rating": entry["rating"],
                        "title": entry["review_title"],
                        "text": entry["review_full"],
                        "parent_asin": entry["parent_asin"],
                        "timestamp": entry["timestamp_ms"],
                        "user_id": user["user_id"],
                    }
                )
                meta.append(
                    {
                        "main_category": product.get("main_category"),
                        "title": product.get("title"),
                        "store": product.get("brand"),
                        "description": [],
                        "categories": [],
                        "details": {},
                        "parent_asin": entry["parent_asin"],
                    }
                )
    return reviews, meta


def test_real_records_come_back_from_both_readers(tmp_path):
    reviews, meta = published_records()
    report = convert(tmp_path, "amazon2023", reviews, meta, with_reviews=True, max_broken_share=0)
    users, items = {review["user_id"] for review in reviews}, {review["parent_asin"] for review in reviews}
    pairs = {(review["user_id"], review["parent_asin"]) for review in reviews}
    assert report.interactions == len(reviews) == 2764
    assert (report.users, report.items, report.repeated) == (len(users), len(items), len(reviews) - len(pairs))
    rows = rows_of(tmp_path, "inter")[1:]
    for row, review in zip(rows, reviews, strict=True):
        assert row[:2] == [review["user_id"], review["parent_asin"]]
        assert (float(row[2]), round(float(row[3]) * 1000)) == (review["rating"], review["timestamp"])
        # None of the words is lost: markup apart, a text of the same words is left.
        plain = clean_text(html.unescape(review["text"])).replace("<br />", " ")
        assert clean_text(row[4]).split() == plain.split()

    config = Config("BPR", "made", config_dict={"data_path": str(tmp_path / "out"), "load_col": None})
    dataset = Dataset(config)
    assert (dataset.user_num - 1, dataset.item_num - 1, dataset.inter_num) == (len(users), len(items), len(reviews))
    theirs = [
        " ".join(word for word in dataset.id2token("review", words) if word != "[PAD]")
        for words in dataset.inter_feat["review"]
    ]
    assert theirs == [clean_text(row[4]) for row in rows]
    wanted = dict.fromkeys(pairs, len(reviews))
    ours, counts = read_reviews(
        tmp_path / "out/made/made.inter", user_id_field="user_id", item_id_field="item_id", named=None, wanted=wanted
    )
    assert (counts.rows, counts.short_rows, counts.long_rows, counts.undecodable_rows) == (len(reviews), 0, 0, 0)
    assert set(ours) == {(row[0], row[1]) for row in rows if row[4]}
