"""Keys that name columns and files: checked against the headers before RecBole reads."""

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.utils.errors import ConfigError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tlabel:float\tchannel:token\ttags:token_seq\n"
ITEM = "item_id:token\ttitle:token_seq\tprice:float\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A ``data_path`` whose dataset ``shop`` has columns of every type, and a file of items."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop").mkdir()
    rows = [f"u{n % 9}\ti{n % 7}\t{n % 5}\t{n}\t{n % 2}\t{'ab'[n % 2]}\tx y\n" for n in range(60)]
    (folder / "shop" / "shop.inter").write_text(INTER + "".join(rows))
    (folder / "shop" / "shop.item").write_text(ITEM + "".join(f"i{n}\tThing {n}\t{n}.5\n" for n in range(7)))
    return str(folder)


ALL = {"load_col": {"inter": "user_id,item_id,rating,timestamp,channel,tags", "item": "*"}}
WRONG = [
    # a column that a filter, an order or a mode uses is loaded
    ({"val_interval": {"rating": "[3,inf)"}}, "val_interval needs column rating, which {inter} has but load_col leaves out: "
     "--load_col={'inter':[user_id,item_id,rating]}"),
    ({"val_interval": {"price": "[3,inf)"}}, "--load_col={'inter':[user_id,item_id],'item':[item_id,price]}"),
    ({**ALL, "val_interval": {"nope": "[3,inf)"}}, "val_interval needs column 'nope', which no file of"),
    ({**ALL, "val_interval": {"tags": ["x"]}}, "RecBole cannot filter by a column of type token_seq"),
    ({**ALL, "val_interval": {"channel": "[3,inf)"}}, "expected a list of texts such as ['a','b']"),
    ({**ALL, "val_interval": {"rating": None}}, "val_interval of rating: expected an interval"),
    ({"val_interval": "2020-01-01"}, "val_interval: expected a dictionary such as {'rating':'[3,inf)'}"),
    ({"threshold": {"rating": 3}}, "threshold needs column rating, which {inter} has but load_col leaves out"),
    ({**ALL, "threshold": {"channel": 3}}, "threshold: column channel is of type token, expected channel:float"),
    ({"eval_args": {"order": "TO"}}, "eval_args order TO (TIME_FIELD) needs column timestamp"),
    ({"eval_args": {"order": "TO"}, "TIME_FIELD": "when", **ALL}, "needs column 'when', which {inter} does not have"),
    ({"eval_args": {"order": "TO"}, "TIME_FIELD": "channel", **ALL}, "column channel is of type token, expected channel:float"),
    ({"alias_of_item_id": "title"}, "alias_of_item_id needs column title, which {item} has but load_col leaves out"),
    ({**ALL, "alias_of_item_id": "price"}, "column price is of type float, expected token or token_seq"),
    ({**ALL, "normalize_field": "channel"}, "column channel is of type token, expected float or float_seq"),
    # load_col and its like
    ({"load_col": "user_id"}, "load_col: expected a dictionary such as {'inter':['user_id','item_id','rating']} (null for all"),
    ({"load_col": ["user_id", "item_id"]}, "load_col: expected a dictionary"),
    ({"load_col": {}}, "load_col leaves out user_id and item_id of {inter}, without which there are no interactions"),
    ({"load_col": {"inter": ["user_id"]}}, "load_col leaves out item_id of {inter}"),
    ({"load_col": {"inter": None}}, "load_col: for 'inter' expected a list of columns or '*', got None"),
    ({"load_col": {"inter": [5]}}, "load_col: for 'inter' expected a list of columns"),
    ({"load_col": {"inter": "*", "foo": ["x"]}}, "load_col names columns of foo, but"),
    ({"load_col": {"inter": ["user_id", "item_id", "nope"]}}, "load_col names column nope, which {inter} does not have"),
    ({"load_col": {"inter": "*", "item": ["title"]}}, "has no column item_id (ITEM_ID_FIELD), or load_col leaves it out"),
    ({"load_col": None, "unload_col": {"item": ["nope"]}}, "unload_col names column nope, which {item} does not have"),
    ({"load_col": None, "unload_col": {"foo": ["x"]}}, "unload_col: there is no file of 'foo', found those of inter, item"),
    ({"load_col": None, "unload_col": "rating"}, "unload_col: expected a dictionary"),
    ({"unload_col": {"inter": ["rating"]}}, "load_col and unload_col both name columns of inter"),
    ({**ALL, "unused_col": {"inter": ["nope"]}}, "unused_col names column nope, which {inter} does not have"),
    ({**ALL, "unused_col": {"inter": ["user_id"]}}, "unused_col names user_id, which training needs"),
    ({**ALL, "unused_col": {"foo": ["x"]}}, "unused_col: there is no file of 'foo'"),
    ({**ALL, "unused_col": {"inter": "*"}}, "unused_col: expected a list of columns for inter, got '*'"),
    ({"unused_col": {"item": ["price"]}}, "unused_col names columns of item, of which load_col loads none"),
    ({"seq_len": {"nope": 2}}, "seq_len names column nope, which no file has"),
    ({"seq_len": {"title": 0}}, "seq_len: expected positive integers"),
    ({"seq_len": 5}, "seq_len: expected a dictionary such as {'title':20}"),
    ({"discretization": {"price": 5}}, "discretization: expected for each column {'method':'ED','bucket':10}"),
    ({"discretization": {"price": {"method": "ED", "bucket": 0}}}, "discretization: expected for each column"),
    ({"discretization": {"price": {"method": "XX", "bucket": 9}}}, "discretization: expected for each column"),
    ({"preload_weight": "x"}, "preload_weight: expected a dictionary such as {'item_id':'vector'}"),
    ({"rm_dup_inter": "x"}, "rm_dup_inter: expected first, last or null, got 'x'"),
    ({"benchmark_filename": "a"}, "benchmark_filename: expected three parts such as [train,valid,test]"),
    ({"benchmark_filename": "a,b,c"}, "no shop.a.inter, shop.b.inter, shop.c.inter in"),
    ({"benchmark_filename": "a,b,../c"}, "expected parts of file names without / and .."),
    ({"additional_feat_suffix": "../x"}, "expected parts of file names without / and .."),
    # names of columns
    ({"USER_ID_FIELD": "uid"}, "{inter} has no column 'uid' (USER_ID_FIELD)"),
    ({"USER_ID_FIELD": "uid", "load_col": None}, "{inter} has no column 'uid' (USER_ID_FIELD), found user_id, item_id, rating"),
    ({"USER_ID_FIELD": "timestamp", "TIME_FIELD": "t", "load_col": None}, "(USER_ID_FIELD) is of type float, expected"),
    ({"USER_ID_FIELD": "item_id"}, "USER_ID_FIELD and ITEM_ID_FIELD both name column 'item_id': they have to differ"),
    *(
        ({key: value}, f"{key}: expected the name of a column, got")
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD")
        for value in ("", None, 5)
    ),
    ({"NEG_PREFIX": ""}, "NEG_PREFIX: expected a prefix such as neg_"),
    # separators and encodings
    ({"field_separator": ""}, "field_separator: expected one or more characters"),
    ({"field_separator": None}, "field_separator: expected one or more characters"),
    ({"seq_separator": ""}, "seq_separator: expected one or more characters"),
    ({"field_separator": "||"}, "field_separator: RecBole takes several characters for a regular expression, got '||'"),
    *(
        ({"encoding": name}, "encoding: expected an encoding of texts, such as utf-8, utf-8-sig, gbk or latin-1")
        for name in ("utf9", "", 5, "base64", "hex", "rot13", ["utf-8"])
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda value: str(value)[:70])
def test_a_key_that_does_not_fit_the_files_is_one_line(shop, tiny_keys, wrong, message):
    keys = {**tiny_keys, "data_path": shop, "load_col": {"inter": ["user_id", "item_id"]}, **wrong}
    if keys["load_col"] is None:
        keys["val_interval"] = {"label": "[1,1]"}
    with pytest.raises(ConfigError) as caught:
        Config("BPR", "shop", config_dict=keys)
    line = str(caught.value)
    assert "\n" not in line
    for suffix in ("inter", "item"):
        message = message.replace(f"{{{suffix}}}", f"{shop}/shop/shop.{suffix}")
    assert message in line


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({"val_interval": {"label": "[1,1]"}, "load_col": {"inter": "*"}}, 30),
        ({"val_interval": {"channel": ["a"]}, "load_col": {"inter": "user_id,item_id,channel"}}, 30),
        ({"val_interval": {"price": "[1,inf)"}, "load_col": {"inter": "user_id,item_id", "item": "item_id,price"}}, None),
        ({"unused_col": {"inter": "rating"}, "load_col": {"inter": "user_id,item_id,rating"}}, 60),
        ({"unload_col": {"inter": ["label"], "item": "title"}, "load_col": None}, 60),
    ],
)
def test_the_remedies_in_the_messages_work(shop, tiny_keys, keys, rows):
    config = Config("BPR", "shop", config_dict={**tiny_keys, "data_path": shop, **keys})
    data = load_data(config)
    assert rows in {None, len(data.dataset.inter_feat)}
    assert len(data.train)


def test_dmf_reads_ratings_only_where_they_are_loaded(shop, tiny_keys):
    keys = {**tiny_keys, "data_path": shop, "load_col": {"inter": ["user_id", "item_id"]}, "inter_matrix_type": "rating"}
    with pytest.raises(ConfigError, match=r"inter_matrix_type rating \(RATING_FIELD\) needs column rating"):
        Config("DMF", "shop", config_dict=keys)
