"""Each source's published records become the right rows."""

import pytest
from prepare_kit import META, REVIEWS, convert, rows_of

from recbole_hnlm.prepare.registry import SOURCES

EXPECTED = {
    "amazon2014": (
        ["A2SUAM1J3GNN3B", "0000013714", "5", "1252800000", "I bought this for my husband who plays the piano."],
        {
            "item_id": "0000013714",
            "title": "Girls Ballet Tutu Zebra Hot Pink",
            "categories": "Sports & Outdoors, Other Sports, Dance, Girls",
            "brand": "Coxlures",
            "description": "",
        },
    ),
    "amazon2018": (
        ["AUI6WTTT0QZYS", "5120053084", "5", "1514764800", "I now have 4 of the 5 available colors of this shirt..."],
        {
            "item_id": "5120053084",
            "title": "Girls Ballet Tutu Zebra Hot Pink",
            "categories": "Sports & Outdoors, Other Sports, Dance",
            "brand": "Coxlures",
            "description": "This tutu is great for dress up play for your little ballerina. One size.",
        },
    ),
    "amazon2023": (
        [
            "AEYORY2AVPMCPDV57CE337YU5LXA",
            "B08BBQ29N5",
            "3",
            "1634275259.292",
            "These were lightweight and soft but much too small for my liking.",
        ],
        {
            "item_id": "B08BBQ29N5",
            "title": "Howard LC0008 Leather Conditioner, 8-Ounce (4-Pack)",
            "categories": "All Beauty",
            "brand": "Howard Products",
            "description": "Conditions leather. Four bottles.",
        },
    ),
    "yelp": (
        # date -u -d "2016-03-09 12:30:45" +%s
        ["Ha3iJu77CxlrFm-vQRs_8g", "tnhfDv5Il8EaGSXZGiuQGg", "4", "1457526645", "Great place to hang out after work."],
        {
            "item_id": "tnhfDv5Il8EaGSXZGiuQGg",
            "title": "Garaje",
            "categories": "Mexican, Burgers, Gastropubs",
            "city": "San Francisco",
        },
    ),
}


def test_every_source_has_fixtures_here():
    assert set(SOURCES) == set(EXPECTED) == set(NEEDED) == set(REVIEWS) == set(META)


@pytest.mark.parametrize("source", SOURCES)
def test_published_records(tmp_path, source):
    report = convert(tmp_path, source, [REVIEWS[source]], [META[source]], with_reviews=True)
    inter, item = EXPECTED[source]
    assert rows_of(tmp_path, "inter") == [
        ["user_id:token", "item_id:token", "rating:float", "timestamp:float", "review:token_seq"],
        inter,
    ]
    header, row = rows_of(tmp_path, "item")
    assert header == ["item_id:token", *(f"{column}:token_seq" for column in list(item)[1:])]
    assert row == list(item.values())
    assert (report.interactions, report.users, report.items, report.items_without_meta) == (1, 1, 1, 0)


@pytest.mark.parametrize("source", SOURCES)
def test_reviews_are_left_out_unless_asked_for(tmp_path, source):
    convert(tmp_path, source, [REVIEWS[source]], [META[source]])
    assert rows_of(tmp_path, "inter")[1] == EXPECTED[source][0][:4]
    assert len(rows_of(tmp_path, "inter")[0]) == 4


# Fields that an interaction needs: user, item, rating, time.
NEEDED = {
    "amazon2014": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "amazon2018": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "amazon2023": ("user_id", "parent_asin", "rating", "timestamp"),
    "yelp": ("user_id", "business_id", "stars", "date"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_metadata_of_nothing_but_an_id_is_a_row_of_empty_texts(tmp_path, source):
    key = NEEDED[source][1]
    meta = {key: META[source][key], "title": None, "description": None, "categories": None, "details": None, "name": None}
    convert(tmp_path, source, [REVIEWS[source]], [meta])
    assert rows_of(tmp_path, "item")[1] == [meta[key], *[""] * len(SOURCES[source].item_fields)]


@pytest.mark.parametrize("source", SOURCES)
def test_every_field_that_an_interaction_needs_is_asked_for(tmp_path, source):
    needed = NEEDED[source]
    bad = [{name: value for name, value in REVIEWS[source].items() if name != key} for key in needed]
    bad += [{**REVIEWS[source], key: None} for key in needed]
    report = convert(tmp_path, source, [*bad, REVIEWS[source]], [META[source]], max_broken_share=0.9)
    assert report.interactions == 1
    assert report.reviews.left_out == 8
    assert all(report.reviews.incomplete[f"no field {key!r}"] == 1 for key in needed)


def test_a_scraped_script_is_no_title(tmp_path):
    title = "var aPageStart = (new Date()).getTime();"
    convert(tmp_path, "amazon2018", [REVIEWS["amazon2018"]], [{**META["amazon2018"], "title": title}])
    assert rows_of(tmp_path, "item")[1][1] == ""


def test_a_brand_among_the_details_comes_before_the_store(tmp_path):
    meta = {**META["amazon2023"], "details": {"Brand": "Howard"}, "categories": ["Home", "Care"]}
    convert(tmp_path, "amazon2023", [REVIEWS["amazon2023"]], [meta])
    assert rows_of(tmp_path, "item")[1][2:4] == ["Home, Care", "Howard"]


def test_older_yelp_editions(tmp_path):
    review, meta = {**REVIEWS["yelp"], "date": "2016-03-09"}, {**META["yelp"], "categories": ["Bars", "Pubs"]}
    convert(tmp_path, "yelp", [review], [meta])
    assert rows_of(tmp_path, "inter")[1][3] == "1457481600"  # date -u -d 2016-03-09 +%s
    assert rows_of(tmp_path, "item")[1][2] == "Bars, Pubs"


def test_seconds_in_the_place_of_milliseconds_and_the_reverse_are_refused(tmp_path):
    late = {**REVIEWS["amazon2018"], "unixReviewTime": 1514764800000}
    report = convert(tmp_path, "amazon2018", [late, REVIEWS["amazon2018"]], [META["amazon2018"]], max_broken_share=0.5)
    assert report.reviews.incomplete == {"a time that is not a number of seconds between 1970 and 2100": 1}
    assert report.interactions == 1
