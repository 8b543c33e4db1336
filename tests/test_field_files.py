"""Atomic files with faults: the message names file, line, column and the remedy, and following the remedy works."""

import gzip
import lzma
import shlex

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.data.row_checks import check_rows
from recbole_hnlm.utils.errors import ConfigError, DataError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ROWS = [f"u{n % 9}\ti{n % 7}\t{n % 5 + 1}\t{n}" for n in range(60)]
INTER = "\n".join([HEADER, *ROWS, ""])
ITEM = "item_id:token\ttitle:token_seq\tprice:float\n" + "".join(f"i{n}\tThing {n}\t{n}.5\n" for n in range(7))


def with_row(row, line=6):
    """Replace one line of the interactions."""
    return "\n".join([HEADER, *ROWS[: line - 2], row, *ROWS[line - 1 :], ""])


def write(folder, inter=INTER, item=ITEM, encoding="utf-8"):
    (folder / "toy").mkdir()
    for suffix, content in (("inter", inter), ("item", item)):
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode(encoding)
            (folder / "toy" / f"toy.{suffix}").write_bytes(data)


def load(folder, keys, *argv):
    keys = {**keys, "data_path": str(folder), "load_col": None, "valid_metric": "MRR@3", "topk": 3}
    return load_data(Config("BPR", "toy", config_dict=keys, argv=argv))


def refused(folder, keys, *argv):
    """Return the line with which a run is refused before it trains."""
    with pytest.raises((ConfigError, DataError)) as caught:
        load(folder, keys, *argv)
    line = str(caught.value)
    assert "\n" not in line
    return line


# --- encodings and separators: the remedy in the message is followed --------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_named_with_its_encoding(tmp_path, tiny_keys, encoding):
    write(tmp_path, encoding=encoding)
    line = refused(tmp_path, tiny_keys)
    assert f"toy.inter begins with a byte order mark, which encoding utf-8 takes for text: use --encoding={encoding}" in line
    assert len(load(tmp_path, tiny_keys, line.split("use ")[1]).dataset.inter_feat) == 60


@pytest.mark.parametrize(
    ("name", "pack"), [("gzip", gzip.compress), ("xz", lzma.compress), ("zip", lambda _: b"PK\x03\x04...")]
)
def test_a_packed_file_is_named(tmp_path, tiny_keys, name, pack):
    write(tmp_path, inter=pack(INTER.encode()))
    assert f"toy.inter is a {name} archive, expected text: unpack it" in refused(tmp_path, tiny_keys)


def test_a_byte_order_mark_of_the_items_alone(tmp_path, tiny_keys):
    write(tmp_path, item="\ufeff" + ITEM)
    assert "toy.item begins with a byte order mark" in refused(tmp_path, tiny_keys)


@pytest.mark.parametrize("separator", [",", ";", "|", "::", " "])
def test_the_separator_that_a_header_seems_to_have_is_named(tmp_path, tiny_keys, separator):
    item = ITEM.replace("Thing ", "Thing")
    write(tmp_path, INTER.replace("\t", separator), item.replace("\t", separator))
    line = refused(tmp_path, tiny_keys)
    assert f"the columns seem to be separated by {separator!r}, not by '\\t': use " in line
    (option,) = shlex.split(line.split("use ")[1])
    assert len(load(tmp_path, {**tiny_keys, "seq_separator": "/"}, option).dataset.inter_feat) == 60


def test_a_tab_is_recommended_as_it_can_be_typed(tmp_path, tiny_keys):
    write(tmp_path)
    assert r"use --field_separator=\t" in refused(tmp_path, tiny_keys, "--field_separator=,")


@pytest.mark.parametrize(("content", "encoding"), [("大红灯笼", "gbk"), ("Amélie", "latin-1")])
def test_another_encoding_is_asked_for(tmp_path, tiny_keys, content, encoding):
    write(tmp_path, item=ITEM.replace("Thing 3", content), encoding=encoding)
    line = refused(tmp_path, tiny_keys)
    assert "toy.item is not encoded in utf-8" in line
    assert "--encoding=gbk or --encoding=latin-1" in line
    load(tmp_path, tiny_keys, f"--encoding={encoding}")


@pytest.mark.parametrize("content", [INTER.encode("utf-16-le"), bytes(4000)])
def test_zero_bytes_are_no_text(tmp_path, tiny_keys, content):
    write(tmp_path, content)
    assert "has zero bytes in its first line" in refused(tmp_path, tiny_keys)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(tmp_path, tiny_keys, end):
    write(tmp_path, INTER.replace("\n", end), ITEM.replace("\n", end))
    assert len(load(tmp_path, tiny_keys).dataset.inter_feat) == 60


# --- headers -----------------------------------------------------------------------------------------------------------------

HEADERS = {
    HEADER.replace("timestamp", "rating"): "has two columns named 'rating': rename or remove one of them",
    HEADER.replace("timestamp:float", "rating:token"): "has two columns named 'rating'",
    HEADER.replace("rating:float", "rating:int"): "column 'rating:int' has an unknown type, expected one of token, token_seq, "
    "float, float_seq: write rating:float",
    HEADER.replace("rating:float", "rating:Float"): "write rating:float",
    HEADER.replace("rating:float", "rating:string"): "write rating:token",
    HEADER.replace("rating:float", "rating:"): "column 'rating:' has an unknown type",
    HEADER.replace("rating:float", "rating"): "its first line has the cell 'rating', expected name:type cells such as",
    HEADER.replace("rating:float", ":float"): "its first line has the cell ':float'",
    HEADER.replace("user_id:token", "user_id:token_seq"): "column user_id (USER_ID_FIELD) is of type token_seq, expected "
    "user_id:token",
    HEADER.replace("item_id:token", "item_id:float"): "column item_id (ITEM_ID_FIELD) is of type float",
    HEADER.replace("item_id", " item_id"): "column ' item_id:token' has white space around its name",
    HEADER.replace("item_id", "ITEM_ID"): "has no column 'item_id' (ITEM_ID_FIELD), found user_id, ITEM_ID, rating",
    "userId,movieId,rating": "its first line has the cell 'userId,movieId,rating'",
    "": "is empty or begins with an empty line",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_is_none(tmp_path, tiny_keys, header):
    write(tmp_path, "\n".join([header, *ROWS, ""]))
    line = refused(tmp_path, tiny_keys)
    assert f"{tmp_path}/toy/toy.inter" in line
    assert HEADERS[header] in line


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (ITEM.replace(":token_seq", "").replace(":token", "").replace(":float", ""), "its first line has the cell 'item_id'"),
        (ITEM.replace("item_id:token", "item_id:token_seq"), "column item_id (ITEM_ID_FIELD) is not of type token"),
        (ITEM.replace("item_id", "movie"), "has no column item_id (ITEM_ID_FIELD), or load_col leaves it out"),
        ("", "is empty or begins with an empty line"),
        (ITEM.splitlines()[0] + "\n", "has a header and no rows"),
    ],
)
def test_a_file_of_items_with_a_fault(tmp_path, tiny_keys, item, message):
    write(tmp_path, item=item)
    line = refused(tmp_path, tiny_keys)
    assert f"{tmp_path}/toy/toy.item" in line
    assert message in line


# --- rows --------------------------------------------------------------------------------------------------------------------

RAGGED = "line 6: expected 4 fields as in the header, found {}"
ROW_FAULTS = {
    "u1\ti2\t4\t5\textra": RAGGED.format(5),
    "u1\ti2\t4\t5\t": RAGGED.format(5),
    "u1\ti2": RAGGED.format(2),
    "u1": RAGGED.format(1),
    'u1\t"i2\t4\t5': "line 6: a quotation mark begins a cell and does not end it",
    '"u1\ti2\t4\t5"': RAGGED.format(1),
    'u1\t"i"2\t4\t5': "line 6: a quotation mark begins a cell and does not end it",
    "u1\t" + "x" * 200_000 + "\t4\t5": "line 6: a cell has more than 131,072 characters",
    "u1\ti2\t4,5\t5": "line 6, column rating: '4,5' is not a finite number; write a number (times as seconds)",
    "u1\ti2\t4\t2020-01-01 10:00:00": "line 6, column timestamp: '2020-01-01 10:00:00' is not a finite number",
    "u1\ti2\t—\t5": "line 6, column rating: '—' is not a finite number",
    "u1\ti2\t0x10\t5": "line 6, column rating: '0x10' is not a finite number",
    "u1\ti2\tinf\t5": "line 6, column rating: 'inf' is not a finite number",
    "u1\ti2\t1e999\t5": "line 6, column rating: '1e999' is not a finite number",
}


@pytest.mark.parametrize("row", ROW_FAULTS, ids=lambda row: row[:30])
def test_a_row_with_a_fault_is_named_with_its_line(tmp_path, tiny_keys, row):
    write(tmp_path, with_row(row))
    line = refused(tmp_path, tiny_keys)
    assert f"{tmp_path}/toy/toy.inter, {ROW_FAULTS[row]}" in line
    assert len(line) < 500


def test_a_surplus_field_in_the_first_row_does_not_shift_the_columns(tmp_path, tiny_keys):
    write(tmp_path, "\n".join([HEADER, *(f"{row}\textra" for row in ROWS), ""]))
    assert "line 2: expected 4 fields as in the header, found 5" in refused(tmp_path, tiny_keys)


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("", 59),
        ("u1\ti2\t\t5", 60),
        ("u1\ti2\tnan\t5", 60),
        ("u1\ti2\t 4 \t5", 60),
        ('"u1"\t"i2"\t"4"\t"5"', 60),
        ('u1\ti"2\t4\t5', 59),  # no item of toy.item has this name
        ("\ti2\t4\t5", 59),
    ],
)
def test_rows_that_recbole_reads_as_they_are_meant_stay(tmp_path, tiny_keys, row, kept):
    write(tmp_path, with_row(row))
    assert len(load(tmp_path, tiny_keys).dataset.inter_feat) == kept


def test_a_bad_cell_in_a_list_of_numbers_is_named(tmp_path, tiny_keys):
    write(tmp_path, item=ITEM.replace("price:float", "price:float_seq").replace("\t3.5", "\t3.5 4,5"))
    assert "toy.item, line 5, column price: '4,5' is not a finite number" in refused(tmp_path, tiny_keys)


def test_a_column_without_any_number_is_named(tmp_path, tiny_keys):
    write(tmp_path, "\n".join([HEADER, *(f"u{n % 9}\ti{n % 7}\t\t{n}" for n in range(60)), ""]))
    assert "column rating has no number in any row: leave it out with load_col" in refused(tmp_path, tiny_keys)


def test_an_unloaded_column_may_hold_anything(tmp_path, tiny_keys):
    write(tmp_path, with_row("u1\ti2\tsoon\t—"))
    keys = {**tiny_keys, "data_path": str(tmp_path), "topk": 3, "valid_metric": "MRR@3"}
    assert len(load_data(Config("BPR", "toy", config_dict=keys)).dataset.inter_feat) == 60


@pytest.mark.parametrize(("content", "message"), [(HEADER + "\n", "has a header and no rows"), (None, "no toy.inter in")])
def test_no_interactions(tmp_path, tiny_keys, content, message):
    write(tmp_path, content)
    assert message in refused(tmp_path, tiny_keys)


def test_bytes_of_another_encoding_far_down_are_found(tmp_path):
    path = tmp_path / "toy.inter"
    path.write_bytes(INTER.encode() + b"u1\ti2\t3\t4\n" * 20_000 + b"u1\ti\xff\t3\t4\n")
    with pytest.raises(DataError, match="is not encoded in utf-8"):
        check_rows(path, None, "\t")
