"""Downloading RecBole's datasets, from a server on this machine in the place of the remote host."""

import io
import stat
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recbole_hnlm.cli import run_script
from recbole_hnlm.data import download
from recbole_hnlm.utils import paths
from recbole_hnlm.utils.errors import DataError

NAME, ARCHIVE = "yelp", "Yelp_Old"  # RecBole's dataset and the archive's file name differ


def _zip(entries):
    """A zip archive of (name or ZipInfo, text)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in entries:
            archive.writestr(name, text)
    return buffer.getvalue()


@contextmanager
def serve(body, *, status=200, stated=None):
    """Serve one body under every path; ``stated`` replaces its size in Content-Length."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            if stated != "none":
                self.send_header("Content-Length", str(stated if stated is not None else len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x/{ARCHIVE}.zip?edition=1", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def yelp(tiny_data_path):
    """The archive of the dataset, with the columns of RecBole's yelp."""
    rows = (tiny_data_path / "tiny" / "tiny.inter").read_text().splitlines()[1:]
    inter = "user_id:token\tbusiness_id:token\tstars:float\tdate:float\n" + "\n".join(rows) + "\n"
    item = "business_id:token\tname:token_seq\n" + "".join(f"i{item}\tPlace {item}\n" for item in range(30))
    return _zip([(f"{ARCHIVE}.inter", inter), (f"{ARCHIVE}.item", item), ("README", "hello")])


@pytest.fixture
def known(workdir, monkeypatch):
    """Makes an address the one from which RecBole's yelp comes."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def point(url):
        file = workdir / "url.yaml"
        file.write_text(f"{NAME}: {url}\n")
        monkeypatch.setattr(paths, "_DOWNLOADS", file)

    return point


# The tiny ratings and times do not fit yelp's windows, which are not the point here.
RUN = [
    "--model=BPR",
    f"--dataset={NAME}",
    "--epochs=1",
    "--topk=[5]",
    "--valid_metric=MRR@5",
    "--val_interval=null",
    "--user_inter_num_interval=[1,inf)",
    "--item_inter_num_interval=[1,inf)",
    "--use_gpu=False",
    "--show_progress=False",
    "--state=WARNING",
]


def _refused(workdir, capsys, pattern):
    """A run fails with one line, and no dataset is left behind."""
    assert run_script(RUN) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert pattern in error
    left = [str(path.relative_to(workdir)) for path in (workdir / "dataset").rglob("*") if path.name != ".lock"]
    assert sorted(left) == ["dataset/.downloads", f"dataset/.downloads/{NAME}"]


def test_the_first_run_downloads_and_the_second_uses_the_files(workdir, known, yelp, capsys):
    with serve(yelp) as (url, asked):
        known(url)
        assert run_script(RUN) == 0
        assert run_script(RUN) == 0
    assert len(asked) == 1
    folder = workdir / "dataset" / NAME
    assert sorted(path.name for path in folder.iterdir()) == ["README", f"{NAME}.inter", f"{NAME}.item"]
    assert list((workdir / "dataset" / ".downloads" / NAME).iterdir()) == [workdir / "dataset/.downloads" / NAME / ".lock"]
    assert run_script(RUN) == 0  # the server is gone


def test_a_missing_file_on_the_server_is_one_line_and_a_rerun_works(workdir, known, yelp, capsys):
    with serve(b"gone", status=404) as (url, _):
        known(url)
        _refused(workdir, capsys, "the server answers 404")
    with serve(yelp) as (url, _):
        known(url)
        assert run_script(RUN) == 0


def test_a_connection_that_breaks_off_is_noticed_and_a_rerun_works(workdir, known, yelp, capsys):
    with serve(yelp, stated=len(yelp) + 100) as (url, _):
        known(url)
        _refused(workdir, capsys, f"broke off after {len(yelp):,} of {len(yelp) + 100:,} bytes")
    with serve(yelp) as (url, _):
        known(url)
        assert run_script(RUN) == 0


def test_half_an_archive_without_a_stated_size_is_noticed(workdir, known, yelp, capsys):
    with serve(yelp[: len(yelp) // 2], stated="none") as (url, _):
        known(url)
        _refused(workdir, capsys, "is not an intact zip archive")


def test_a_dead_server_is_one_line(workdir, known, capsys):
    with serve(b"") as (url, _):
        known(url)
    _refused(workdir, capsys, "Connection refused")


def test_a_damaged_file_inside_the_archive_is_noticed(workdir, known, yelp, capsys):
    place = yelp.index(f"{ARCHIVE}.inter".encode()) + 60
    with serve(yelp[:place] + bytes([yelp[place] ^ 255]) + yelp[place + 1 :]) as (url, _):
        known(url)
        _refused(workdir, capsys, "is not an intact zip archive")


def test_what_is_no_archive_is_refused(workdir, known, capsys):
    with serve(b"<html>sign in to go on</html>") as (url, _):
        known(url)
        _refused(workdir, capsys, "is not an intact zip archive")


def test_an_archive_of_something_else_is_refused(workdir, known, capsys):
    with serve(_zip([("other.inter", "user_id:token\n")])) as (url, _):
        known(url)
        _refused(workdir, capsys, f"holds no {NAME}.inter (found other.inter)")


def test_files_without_the_columns_of_the_settings_are_named(workdir, known, capsys):
    with serve(_zip([(f"{ARCHIVE}.inter", "user_id:token\titem_id:token\nu\ti\n")])) as (url, _):
        known(url)
        assert run_script(RUN) == 2
    assert "load_col names column business_id, stars, date, which" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "C:evil"])
def test_an_entry_outside_the_folder_is_refused_and_nothing_is_written(workdir, known, yelp, capsys, name):
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    with serve(_zip([(f"{ARCHIVE}.inter", "x"), (info, "boo")])) as (url, _):
        known(url)
        _refused(workdir, capsys, "an entry outside its folder")
    assert not list(workdir.parent.glob("**/*evil"))


def test_links_are_refused(workdir, known, capsys):
    link = zipfile.ZipInfo("yelp.item")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with serve(_zip([(f"{ARCHIVE}.inter", "x"), (link, "/etc/passwd")])) as (url, _):
        known(url)
        _refused(workdir, capsys, "an entry that is not a plain file")


def test_what_a_killed_process_left_is_cleared(workdir, known, yelp, tmp_path):
    left = workdir / "dataset" / ".downloads" / NAME / "work"
    left.mkdir(parents=True)
    (left / "archive.zip").write_bytes(yelp[:100])
    with serve(yelp) as (url, _):
        known(url)
        assert download.ensure_dataset(NAME, workdir / "dataset" / NAME, [f"{NAME}.inter"])
    assert not left.exists()


def test_processes_that_start_together_download_once(workdir, known, yelp):
    folder = workdir / "dataset" / NAME
    made = []
    with serve(yelp) as (url, asked):
        known(url)
        threads = [
            threading.Thread(target=lambda: made.append(download.ensure_dataset(NAME, folder, [f"{NAME}.inter"])))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(made) == [False, False, False, True]
    assert len(asked) == 1


def test_a_disk_without_room_is_named_before_the_download(workdir, known, yelp, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with serve(yelp) as (url, _):
        known(url)
        with pytest.raises(DataError, match=r"which has 10: make room"):
            download.ensure_dataset(NAME, workdir / "dataset" / NAME, [])


def test_only_http_is_spoken(tmp_path):
    with pytest.raises(DataError, match="http"):
        download.fetch("file:///etc/passwd", tmp_path / "x")


def test_an_unwritable_folder_of_datasets_is_one_line(workdir, known, capsys):
    (workdir / "dataset").write_text("in the way")
    known("http://127.0.0.1:1/x.zip")
    with pytest.raises(DataError, match="cannot write dataset yelp"):
        download.ensure_dataset(NAME, workdir / "dataset" / NAME, [])


def test_recboles_own_list_of_downloads_is_read():
    assert paths.recbole_downloads()["yelp"].endswith("/yelp.zip")
