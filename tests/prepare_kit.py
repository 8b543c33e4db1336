"""Records in each source's published format, and a conversion of them."""

import gzip
import json

from recbole_hnlm.prepare.convert import prepare

REVIEWS = {
    # http://jmcauley.ucsd.edu/data/amazon/links.html, "Sample review"
    "amazon2014": {
        "reviewerID": "A2SUAM1J3GNN3B",
        "asin": "0000013714",
        "reviewerName": "J. McDonald",
        "helpful": [2, 3],
        "reviewText": "I bought this for my husband who plays the piano.",
        "overall": 5.0,
        "summary": "Heavenly Highway Hymns",
        "unixReviewTime": 1252800000,
        "reviewTime": "09 13, 2009",
    },
    # https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/, "Sample review"
    "amazon2018": {
        "image": ["https://images-na.ssl-images-amazon.com/images/I/71eG75FTJJL._SY88.jpg"],
        "overall": 5.0,
        "vote": "2",
        "verified": True,
        "reviewTime": "01 1, 2018",
        "reviewerID": "AUI6WTTT0QZYS",
        "asin": "5120053084",
        "style": {"Size:": "Large", "Color:": "Charcoal"},
        "reviewerName": "Abbey",
        "reviewText": "I now have 4 of the 5 available colors of this shirt... ",
        "summary": "Comfy, flattering, discreet--highly recommended!",
        "unixReviewTime": 1514764800,
    },
    # https://amazon-reviews-2023.github.io/, "User Reviews"
    "amazon2023": {
        "sort_timestamp": 1634275259292,
        "rating": 3.0,
        "helpful_votes": 0,
        "title": "Meh",
        "text": "These were lightweight and soft but much too small for my liking.",
        "images": [
            {"small_image_url": "https://m.media-amazon.com/images/I/81FN4c0VHzL._SL256_.jpg", "attachment_type": "IMAGE"}
        ],
        "asin": "B088SZDGXG",
        "verified_purchase": True,
        "parent_asin": "B08BBQ29N5",
        "timestamp": 1634275259292,
        "user_id": "AEYORY2AVPMCPDV57CE337YU5LXA",
    },
    # https://www.yelp.com/dataset/documentation/main, review.json
    "yelp": {
        "review_id": "zdSx_SD6obEhz9VrW9uAWA",
        "user_id": "Ha3iJu77CxlrFm-vQRs_8g",
        "business_id": "tnhfDv5Il8EaGSXZGiuQGg",
        "stars": 4,
        "date": "2016-03-09 12:30:45",
        "text": "Great place to hang out after work.",
        "useful": 0,
        "funny": 0,
        "cool": 0,
    },
}
META = {
    "amazon2014": {
        "asin": "0000013714",
        "title": "Girls Ballet Tutu Zebra Hot Pink",
        "price": 3.17,
        "imUrl": "http://ecx.images-amazon.com/images/I/51fAmVkTbyL._SY300_.jpg",
        "related": {"also_bought": ["B00JHONN1S"], "bought_together": ["B002BZX8Z6"]},
        "salesRank": {"Toys & Games": 211836},
        "brand": "Coxlures",
        "categories": [["Sports & Outdoors", "Other Sports", "Dance"], ["Sports & Outdoors", "Girls"]],
    },
    "amazon2018": {
        "asin": "5120053084",
        "title": "Girls Ballet Tutu Zebra Hot Pink",
        "feature": ["Botiquecutie Trademark exclusive Brand", "Hot Pink Layered Zebra Print Tutu"],
        "description": ["This tutu is great for dress up play for your little ballerina.", "One size."],
        "price": 3.17,
        "imageURL": "http://ecx.images-amazon.com/images/I/51fAmVkTbyL._SY300_.jpg",
        "also_buy": ["B00JHONN1S"],
        "salesRank": {"Toys & Games": 211836},
        "brand": "Coxlures",
        "category": ["Sports & Outdoors", "Other Sports", "Dance"],
    },
    "amazon2023": {
        "main_category": "All Beauty",
        "title": "Howard LC0008 Leather Conditioner, 8-Ounce (4-Pack)",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": [],
        "description": ["Conditions leather.", "Four bottles."],
        "price": None,
        "images": [{"thumb": "https://m.media-amazon.com/images/I/71i77AuI9xL._SS40_.jpg", "variant": "MAIN"}],
        "videos": [],
        "store": "Howard Products",
        "categories": [],
        "details": {"Package Dimensions": "7.1 x 5.5 x 3 inches", "UPC": "617390882781"},
        "parent_asin": "B08BBQ29N5",
        "bought_together": None,
    },
    "yelp": {
        "business_id": "tnhfDv5Il8EaGSXZGiuQGg",
        "name": "Garaje",
        "address": "475 3rd St",
        "city": "San Francisco",
        "state": "CA",
        "postal code": "94107",
        "latitude": 37.7817529521,
        "longitude": -122.39612197,
        "stars": 4.5,
        "review_count": 1198,
        "is_open": 1,
        "attributes": {"RestaurantsTakeOut": True},
        "categories": "Mexican, Burgers, Gastropubs",
        "hours": {"Monday": "10:00-21:00"},
    },
}


def line(record, *, literal=False):
    """One line of a dump, bytes passed through."""
    return record if isinstance(record, bytes) else (repr(record) if literal else json.dumps(record)).encode()


def dump(path, records, *, literal=False):
    """Write a dump; gzip where the name says so."""
    content = b"".join(line(record, literal=literal) + b"\n" for record in records)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def convert(folder, source, reviews, meta, **options):
    """Convert records into the dataset ``made`` below ``folder/out``; returns the report."""
    files = dump(folder / "reviews.json.gz", reviews), dump(folder / "meta.json.gz", meta, literal=source == "amazon2014")
    return prepare(source, *files, "made", folder / "out", **options)


def rows_of(folder, suffix):
    """Header and rows of the converted file, cells as they are."""
    text = (folder / "out" / "made" / f"made.{suffix}").read_bytes().decode()
    assert text.endswith("\n")
    return [row.split("\t") for row in text[:-1].split("\n")]
