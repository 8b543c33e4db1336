"""The published settings as YAML, and the comparison of sizes."""

import sys

import numpy as np
import pytest
from prepare_kit import META, REVIEWS, dump
from published_sizes import PUBLISHED, Sizes, _read, _sizes, _windowed, check, interval_mask, k_core, main
from recbole.data.dataset import Dataset

from recbole_hnlm.config import Config
from recbole_hnlm.prepare.convert import prepare
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.values import load_yaml


def setting(name):
    return load_yaml(properties_dir() / "dataset" / f"{name}.yaml")


def test_intervals_as_recbole_writes_them():
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan])
    assert interval_mask(values, "[0,1);(2,inf)").tolist() == [True, False, False, True, False]
    assert interval_mask(values, "(0,2]").tolist() == [False, True, True, False, False]


def test_k_core_by_hand():
    # u0: a b; u1: a b; u2: a c. In a 2-core c goes, then u2 with its remaining a.
    users, items = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 2])
    assert k_core(users, items, 2, iterated=False).tolist() == [True, True, True, True, True, False]
    assert k_core(users, items, 2).tolist() == [True, True, True, True, False, False]
    assert not k_core(users, items, 3).any()


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_share_what_the_paper_says(name):
    keys = setting(name)
    column = keys["load_col"]["inter"]
    assert set(keys["val_interval"]) == set(column[2:])
    assert keys.get("ITEM_ID_FIELD", "item_id") == column[1]
    twin = {"yelp": "paper-yelp2018", "amazon-toys-games-18": "paper-toys", "amazon-cds-vinyl-18": "paper-cds"}.get(name)
    if twin:
        assert list(keys["val_interval"].values()) == list(setting(twin)["val_interval"].values())
        assert keys["user_inter_num_interval"] == setting(twin)["user_inter_num_interval"] == "[10,inf)"


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("paper-toys", "2015-01-01", "2018-01-01"),
        ("paper-cds", "2014-01-01", "2016-01-01"),
        ("paper-yelp2018", "2015-01-01", "2018-01-01"),
        ("paper-electronics", "2010-01-01", "2018-01-01"),
    ],
)
def test_windows_are_the_papers_days(name, first, last):
    low, high = setting(name)["val_interval"]["timestamp"].strip("[]").split(",")
    assert [np.datetime64(int(low), "s"), np.datetime64(int(high), "s")] == [np.datetime64(first), np.datetime64(last)]


@pytest.fixture
def yelp_made(tmp_path):
    """Prepared Yelp reviews around the window's ends: 12 users on 12 items, with noise that the setting removes."""
    days = {"2014-12-31 23:59:59": 0, "2015-01-01 00:00:00": 1, "2017-12-31 23:59:59": 2, "2018-01-01 00:00:01": 3}
    reviews = []
    for user in range(12):
        for item in range(12):
            date = "2018-01-01 00:00:00" if item == 11 else list(days)[1 + (user + item) % 2]
            reviews.append({**REVIEWS["yelp"], "user_id": f"u{user}", "business_id": f"b{item}", "date": date})
        reviews.append({**reviews[-1], "business_id": "low", "stars": 3})
        reviews.append({**reviews[-2], "business_id": "early", "date": "2014-12-31 23:59:59"})
        reviews.append({**reviews[-3], "business_id": "late", "date": "2018-01-01 00:00:01"})
    reviews.append({**reviews[0], "date": "2016-01-01 00:00:00"})  # a repeated pair
    files = dump(tmp_path / "r.json", reviews), dump(tmp_path / "m.json", [META["yelp"]])
    prepare("yelp", *files, "paper-yelp2018", tmp_path / "data")
    return tmp_path / "data"


def test_sizes_are_those_of_recboles_dataset(yelp_made):
    keys = setting("paper-yelp2018")
    dataset = Dataset(Config("BPR", "paper-yelp2018", config_dict={"data_path": str(yelp_made)}))
    frame = _read(yelp_made / "paper-yelp2018" / "paper-yelp2018.inter", keys["load_col"]["inter"])
    ours = _sizes(_windowed(frame, keys["val_interval"], "last", "timestamp"), 10)
    assert ours == Sizes(dataset.user_num - 1, dataset.item_num - 1, dataset.inter_num) == Sizes(12, 12, 144)


def test_the_report_shows_each_open_choice(yelp_made, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["published_sizes.py", "--name=paper-yelp2018", f"--data_path={yelp_made}"])
    main()
    rows = {line[:52].strip(): line[52:].split() for line in capsys.readouterr().out.splitlines()[1:]}
    counts = {what: [cell for cell in cells if not cell.startswith(("(", "+", "-"))][:3] for what, cells in rows.items()}
    assert counts["published"] == ["29,832", "16,781", "513,976"]
    assert counts["ours: 10-core iterated, end of the window part of it"] == ["12", "12", "144"]
    assert counts["end of the window not part of it"] == ["12", "11", "132"]
    assert counts["repeated pairs kept"] == ["12", "12", "145"]


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(ConfigError, match="no published sizes of dataset 'ml-100k'"):
        check("ml-100k", tmp_path)
    with pytest.raises(DataError, match=r"yelp\.inter is not there"):
        check("yelp", tmp_path)
    (tmp_path / "yelp").mkdir()
    (tmp_path / "yelp" / "yelp.inter").write_text("user_id:token\titem_id:token\n")
    with pytest.raises(DataError, match="no column business_id, stars, date; its columns are user_id, item_id"):
        check("yelp", tmp_path)
