"""Broken, truncated and repeated input; what is on disk afterwards."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest
from prepare_kit import META, REVIEWS, convert, dump, line, rows_of

from recbole_hnlm.cli import main
from recbole_hnlm.prepare import convert as convert_module
from recbole_hnlm.prepare.convert import prepare
from recbole_hnlm.prepare.parsing import python_literal, relaxed_json
from recbole_hnlm.prepare.registry import SOURCES
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, DataError

REVIEW, BUSINESS = REVIEWS["yelp"], META["yelp"]


def many(count):
    return [{**REVIEW, "user_id": f"u{number}", "business_id": f"b{number % 5}"} for number in range(count)]


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def test_bad_lines_are_counted_and_left_out(tmp_path):
    bad = [b'{"user_id": "x", ', b"[1, 2]", b'"text"', b"\xff\xfe", b"", b"   "]
    report = convert(tmp_path, "yelp", [*many(96), *bad], [BUSINESS], max_broken_share=0.04)
    assert (report.reviews.records, report.reviews.unreadable, report.interactions) == (100, 4, 96)
    assert "record 97 has no JSON object" in str(report)


def test_too_many_bad_lines_are_refused_with_the_first_one_named(tmp_path):
    with pytest.raises(DataError, match=r"5 of 101 records are unreadable.*limit of 4\.00%.*record 97 has no JSON object"):
        convert(tmp_path, "yelp", [*many(96), *[b"{"] * 5], [BUSINESS], max_broken_share=0.04)
    assert files_below(tmp_path / "out") == []


def test_the_wrong_source_names_the_fields_that_are_there(tmp_path):
    with pytest.raises(DataError, match=r"has no field 'reviewerID' \(its fields: review_id, user_id, .*Check --source"):
        convert(tmp_path, "amazon2018", many(3), [META["amazon2018"]])


def test_a_hopeless_file_is_refused_before_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_hnlm.prepare.lines._CHUNK", 1 << 16)
    with pytest.raises(DataError, match=r"\d,\d{3} of \d,\d{3} records"):
        convert(tmp_path, "amazon2018", many(20_000), [META["amazon2018"]])


def test_metadata_is_judged_too(tmp_path):
    with pytest.raises(DataError, match=r"meta\.json\.gz: 1 of 2 records are unreadable or incomplete"):
        convert(tmp_path, "yelp", [REVIEW], [BUSINESS, {"name": "no id"}])


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_truncated_gzip_file_is_reported_and_leaves_nothing(tmp_path, part):
    whole = gzip.compress(b"".join(line(record) + b"\n" for record in many(3000)))
    (tmp_path / "cut.json.gz").write_bytes(whole[: int(len(whole) * part)])
    meta = dump(tmp_path / "meta.json", [BUSINESS])
    with pytest.raises(DataError, match=r"cut\.json\.gz ends in the middle.*truncated; download it again"):
        prepare("yelp", tmp_path / "cut.json.gz", meta, "made", tmp_path / "out")
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("place", [40, -6])
def test_a_damaged_gzip_file_is_reported(tmp_path, place):
    whole = bytearray(gzip.compress(b"".join(line(record) + b"\n" for record in many(3000))))
    whole[place] ^= 0xFF
    (tmp_path / "bad.json.gz").write_bytes(whole)
    with pytest.raises(DataError, match=r"bad\.json\.gz is damaged \(.*download it again"):
        prepare("yelp", tmp_path / "bad.json.gz", dump(tmp_path / "meta.json", [BUSINESS]), "made", tmp_path / "out")
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("name", ["empty.json", "empty.json.gz"])
def test_an_empty_file_is_refused(tmp_path, name):
    empty, meta = dump(tmp_path / name, []), dump(tmp_path / "meta.json", [BUSINESS])
    with pytest.raises(DataError, match=rf"{name} is empty"):
        prepare("yelp", empty, meta, "made", tmp_path / "out")
    with pytest.raises(DataError, match=rf"{name} is empty"):
        prepare("yelp", dump(tmp_path / "reviews.json", [REVIEW]), empty, "made", tmp_path / "out")
    assert files_below(tmp_path / "out") == []


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_hnlm.prepare.lines._LONGEST_LINE", 1000)
    monkeypatch.setattr("recbole_hnlm.prepare.lines._CHUNK", 600)
    (tmp_path / "array.json").write_text(json.dumps(many(100)))
    with pytest.raises(DataError, match="expected one record per line"):
        prepare("yelp", tmp_path / "array.json", dump(tmp_path / "meta.json", [BUSINESS]), "made", tmp_path / "out")


def test_lines_across_chunks_windows_ends_a_byte_order_mark_several_members_and_no_last_newline(tmp_path, monkeypatch):
    convert(tmp_path, "yelp", many(50), [BUSINESS])
    expected = rows_of(tmp_path, "inter")
    lines = [line(record) for record in many(50)]
    halves = b"\xef\xbb\xbf" + b"\r\n".join(lines[:25]) + b"\r\n", b"\n".join(lines[25:])
    (tmp_path / "odd.json.gz").write_bytes(b"".join(map(gzip.compress, halves)))
    monkeypatch.setattr("recbole_hnlm.prepare.lines._CHUNK", 333)
    prepare("yelp", tmp_path / "odd.json.gz", tmp_path / "meta.json.gz", "made", tmp_path / "out")
    assert rows_of(tmp_path, "inter") == expected


def test_repeated_reviews_are_kept_and_counted_and_items_are_written_once(tmp_path):
    later = {**REVIEW, "date": "2017-01-01 00:00:00", "stars": 1}
    other = {**BUSINESS, "name": "Another name"}
    unused = {**BUSINESS, "business_id": "never reviewed"}
    bare = {**REVIEW, "business_id": "not described"}
    report = convert(tmp_path, "yelp", [later, REVIEW, REVIEW, bare], [BUSINESS, other, unused])
    assert [row[2] for row in rows_of(tmp_path, "inter")[1:]] == ["1", "4", "4", "4"]
    assert rows_of(tmp_path, "item")[1:] == [
        [BUSINESS["business_id"], "Garaje", "Mexican, Burgers, Gastropubs", "San Francisco"],
        ["not described", "", "", ""],
    ]
    assert (report.users, report.items, report.repeated) == (1, 2, 2)
    assert (report.meta_repeated, report.meta_unused, report.items_without_meta) == (1, 1, 1)
    assert report.filled == {"title": 1, "categories": 1, "city": 1}


def test_the_order_of_the_dump_is_kept(tmp_path):
    convert(tmp_path, "yelp", many(20_000), [BUSINESS])
    assert [row[0] for row in rows_of(tmp_path, "inter")[1:]] == [f"u{number}" for number in range(20_000)]


def test_two_conversions_of_one_dump_are_equal_to_the_byte(tmp_path):
    convert(tmp_path, "yelp", many(100), [BUSINESS])
    before = {name: (tmp_path / "out/made" / name).read_bytes() for name in files_below(tmp_path / "out")}
    assert set(before) == {"made.inter", "made.item", "made.prepare.json"}
    convert(tmp_path, "yelp", many(100), [BUSINESS])
    assert before == {name: (tmp_path / "out/made" / name).read_bytes() for name in files_below(tmp_path / "out")}


def test_a_failed_conversion_leaves_the_earlier_dataset_as_it_was(tmp_path):
    convert(tmp_path, "yelp", many(10), [BUSINESS])
    before = rows_of(tmp_path, "inter"), rows_of(tmp_path, "item")
    with pytest.raises(DataError, match="unreadable"):
        convert(tmp_path, "yelp", many(20), [b"{"])
    assert (rows_of(tmp_path, "inter"), rows_of(tmp_path, "item")) == before
    assert files_below(tmp_path / "out") == ["made.inter", "made.item", "made.prepare.json"]


def test_the_manifest_tells_what_was_written(tmp_path):
    report = convert(tmp_path, "yelp", [REVIEW], [BUSINESS])
    facts = json.loads((report.folder / "made.prepare.json").read_text())
    assert facts["source"] == "yelp"
    assert facts["counts"]["interactions"] == facts["counts"]["users"] == 1
    assert facts["outputs"] == {name: (report.folder / name).stat().st_size for name in ("made.inter", "made.item")}


def test_a_foreign_dataset_is_not_replaced(tmp_path):
    folder = tmp_path / "out" / "made"
    folder.mkdir(parents=True)
    (folder / "made.inter").write_text("precious")
    with pytest.raises(ConfigError, match="holds a dataset that recbole-hnlm prepare did not write"):
        convert(tmp_path, "yelp", [REVIEW], [BUSINESS])
    assert (folder / "made.inter").read_text() == "precious"


def test_a_killed_conversion_leaves_no_dataset_and_the_next_run_cleans_up(tmp_path):
    reviews, meta, out = (
        dump(tmp_path / "reviews.json", many(30_000)),
        dump(tmp_path / "meta.json", [BUSINESS]),
        tmp_path / "out",
    )
    # The interactions are written, the items never come to an end.
    program = (
        "import time; from recbole_hnlm.prepare import convert as c; c._write_item = lambda *_: time.sleep(60); "
        f"c.prepare('yelp', {str(reviews)!r}, {str(meta)!r}, 'made', {str(out)!r})"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 30
        while not any(path.stat().st_size for path in out.rglob("*.inter.*.tmp")):
            assert child.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    left = files_below(out)
    assert f"made.inter.{child.pid}.tmp" in left
    assert [name for name in left if not name.endswith(".tmp")] == []
    prepare("yelp", reviews, meta, "made", out)
    assert files_below(out) == ["made.inter", "made.item", "made.prepare.json"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "_write_item", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        convert(tmp_path, "yelp", [REVIEW], [BUSINESS])
    assert files_below(tmp_path / "out") == []


def test_python_literals_are_read_and_nothing_is_executed(tmp_path):
    lines = [
        b"{'asin': '0000013714', 'title': 'It\\'s \"quoted\"', 'description': u'caf\\xe9 \\ud83d\\ude00 \\ud83d'}",
        b"{'asin': __import__('os').system('touch %s')}" % bytes(tmp_path / "executed"),
        b"{'asin': " + b"(" * 5000 + b")" * 5000 + b"}",
    ]
    report = convert(tmp_path, "amazon2014", [REVIEWS["amazon2014"]], lines, max_broken_share=0.7)
    assert rows_of(tmp_path, "item")[1] == ["0000013714", 'It\'s "quoted"', "", "", "café \U0001f600 \ufffd"]
    assert (report.meta.mended, report.meta.unreadable) == (1, 2)
    assert not (tmp_path / "executed").exists()


def test_json_that_is_not_strict_is_mended():
    assert relaxed_json(b'{"a": "\\ud83d x", "b": NaN, "c": "caf\xe9\tx"}')["a"] == "\ufffd x"
    assert relaxed_json(b'{"c": "caf\xe9\tx"}') == {"c": "caf\ufffd\tx"}
    assert python_literal(b'{"a": null}') == {"a": None}
    for broken in (b"{'a': 1}", b"", b"[" * 100_000):
        with pytest.raises(ValueError, match=r"Expecting|nested"):
            relaxed_json(broken)


def test_lone_surrogates_do_not_stop_the_writing(tmp_path):
    record = line({**REVIEW, "text": "@@"}).replace(b"@@", b"half \\ud83d of it")
    report = convert(tmp_path, "yelp", [record], [BUSINESS], with_reviews=True)
    assert rows_of(tmp_path, "inter")[1][4] == "half \ufffd of it"
    assert report.reviews.mended == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--source": "amazon2019"}, f"source 'amazon2019': expected one of {', '.join(SOURCES)}"),
        ({"--name": "../up"}, "name '../up': expected letters"),
        ({"--reviews": "none.json"}, "--reviews: none.json does not exist"),
        ({"--max_broken_share": "2"}, "max_broken_share 2.0: expected a share between 0 and 1"),
        ({"--epochs": "3"}, "unexpected argument '--epochs=3'"),
    ],
)
def test_the_verb_reports_mistakes_in_one_line(tmp_path, capsys, changed, message):
    options = {
        "--source": "yelp",
        "--reviews": str(dump(tmp_path / "r.json", [REVIEW])),
        "--meta": str(dump(tmp_path / "m.json", [BUSINESS])),
        "--name": "made",
        "--out": str(tmp_path / "out"),
    } | changed
    assert main(["prepare", *(f"{key}={value}" for key, value in options.items())]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_the_verb_names_what_it_needs(tmp_path, capsys):
    assert main(["prepare", "--name=x", f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("error: prepare needs --source, --reviews, --meta")


def test_the_verb_prints_its_report(tmp_path, capsys):
    files = dump(tmp_path / "r.json", [REVIEW]), dump(tmp_path / "m.json", [BUSINESS])
    argv = [f"--reviews={files[0]}", f"--meta={files[1]}", "--name=made", f"--out={tmp_path}", "--with_reviews"]
    assert main(["prepare", "--source=yelp", *argv]) == 0
    assert "1 interactions of 1 users and 1 items, 2016-03-09 to 2016-03-09" in capsys.readouterr().out
    assert (tmp_path / "made" / "made.inter").read_text().splitlines()[1].endswith("\tGreat place to hang out after work.")
