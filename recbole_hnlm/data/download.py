"""Downloading RecBole's datasets: whole or not at all.

RecBole 1.2.1 downloads by itself (``Dataset._download``), but ends in a process group's barrier even in a single process
(``data/dataset/dataset.py``: "Default process group has not been initialized"), makes the dataset's folder before it has a file
to put there, does not notice a connection that broke, and asks on standard input above 1 GB. Here the archive and its files lie
in a separate folder next to the target until everything is checked; one rename puts them into place.
"""

from __future__ import annotations

import http.client
import logging
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.files import exclusive_writer, refuse_objects
from recbole_hnlm.utils.paths import recbole_downloads

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ensure_dataset", "fetch", "unpack"]

_BLOCK_BYTES = 1 << 20
_SILENCE_SECONDS = 60.0
_PLACE = ".downloads"  # next to the datasets, so that a rename moves finished files
# Atomic files shrink about tenfold; small archives may do better.
_MOST_RATIO, _ALWAYS_BYTES, _MOST_BYTES = 100, 64 << 20, 256 << 30
_AGAIN = "nothing was kept: run the same command again"
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_logger = logging.getLogger(__name__)


def ensure_dataset(name: str, folder: Path, expected: Sequence[str], *, show_progress: bool = True) -> bool:
    """Download a dataset that RecBole knows, unless its folder is there.

    Processes that want the same dataset at once, such as the ranks of a launch, wait for the first one.

    Args:
        name: name of the dataset.
        folder: where its atomic files go, ``<data_path>/<name>``.
        expected: names of the files that must be in it, such as ``yelp.inter``.
        show_progress: whether to show a progress bar.

    Returns:
        Whether it was downloaded now.

    Raises:
        DataError: there is no such download, it failed, or the archive is not what it should be; the folder is then absent.
        ArtifactError: the folder of datasets cannot be written.
    """
    url = recbole_downloads().get(name)
    if folder.exists() or url is None:
        return False
    place = folder.parent / _PLACE / name
    try:
        place.mkdir(parents=True, exist_ok=True)
        with exclusive_writer(place):
            if folder.exists():
                return False
            _download(name, url, folder, expected, place / "work", show_progress=show_progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot write dataset {name} to {folder}: {reason}; {_AGAIN}, or with another --data_path") from error
    _logger.info("downloaded dataset %s from %s to %s", name, url, folder)
    return True


def _download(name: str, url: str, folder: Path, expected: Sequence[str], work: Path, *, show_progress: bool) -> None:
    archive, files = work / "archive.zip", work / "files"
    # Whatever is there was left by a killed process: the lock is ours.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        fetch(url, archive, show_progress=show_progress)
        unpack(archive, files, url)
        _rename(files, PurePosixPath(urlsplit(url).path).stem, name)
        missing = [wanted for wanted in expected if not (files / wanted).is_file()]
        if missing:
            found = ", ".join(sorted(path.name for path in files.iterdir())) or "nothing"
            raise DataError(f"the archive {url} holds no {', '.join(missing)} (found {found}); {_AGAIN}")
        files.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fetch(url: str, target: Path, *, show_progress: bool = True) -> None:
    """Download a file, with a progress bar unless it is not wanted; its size must be the one that the server states.

    Args:
        url: http or https.
        target: a file in an existing folder.
        show_progress: whether to show the bar.

    Raises:
        DataError: no such file, a server that is dead, stays silent for a minute or breaks off, or too little room on the disk.
        OSError: the file cannot be written.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DataError(f"cannot download {url}: expected an address that begins with http:// or https://")
    try:
        response = urllib.request.urlopen(url, timeout=_SILENCE_SECONDS)  # noqa: S310 -- the scheme was checked
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(_failed(url, error)) from error
    with response, target.open("wb") as file:
        stated = response.headers.get("Content-Length")
        size = int(stated) if stated is not None and stated.isdigit() else None
        _require_room(target.parent, size or 0, url)
        description = f"downloading {Path(urlsplit(url).path).name}"
        with tqdm(total=size, unit="B", unit_scale=True, desc=description, disable=not show_progress) as bar:
            received = _copy(response, file, url, bar)
    if size is not None and received != size:
        raise DataError(f"the download of {url} broke off after {received:,} of {size:,} bytes; {_AGAIN}")


def _copy(response: BinaryIO, file: BinaryIO, url: str, bar: Any) -> int:
    received = 0
    while True:
        try:
            block = response.read(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(_failed(url, error, received)) from error
        if not block:
            return received
        file.write(block)
        received += len(block)
        bar.update(len(block))


def _failed(url: str, error: Exception, received: int = 0) -> str:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server answers {error.code} {error.reason}"
    else:
        reason = str(getattr(error, "reason", None) or error) or type(error).__name__
    after = f" after {received:,} bytes" if received else ""
    return (
        f"cannot download {url}{after}: {reason}; {_AGAIN} with a network, or put the atomic files into data_path yourself "
        "(docs/datasets.md)"
    )


def _require_room(folder: Path, size: int, url: str) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{url} needs {size:,} bytes in {folder.parent}, which has {free:,}: make room or choose another --data_path"
        )


def unpack(archive: Path, folder: Path, url: str) -> None:
    """Unpack a zip archive into a new folder; the checksums of its files are verified.

    Args:
        archive: the file.
        folder: made here.
        url: where the archive comes from, for messages.

    Raises:
        DataError: it is damaged or not a zip archive, needs a password or more room than there is, or has an entry that is a
            link or device or would lie outside the folder. Nothing outside the folder is written.
        OSError: a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            for entry in entries:
                _refuse_unsafe(entry, url)
            size = sum(entry.file_size for entry in entries)
            _refuse_bomb(size, archive.stat().st_size, url)
            _require_room(archive.parent, size, url)
            folder.mkdir()
            # No entry yields more bytes than it declares: zipfile stops there and compares the checksum.
            content.extractall(folder)
    except _BROKEN_ZIP as error:
        raise DataError(f"{url} is not an intact zip archive ({error}); {_AGAIN}") from error
    for path in sorted(folder.rglob("*.npy")):
        refuse_objects(path)


def _refuse_bomb(size: int, packed: int, url: str) -> None:
    limit = min(max(_ALWAYS_BYTES, _MOST_RATIO * packed), _MOST_BYTES)
    if size > limit:
        raise DataError(
            f"the archive {url} of {packed:,} bytes unpacks to {size:,}, above the limit of {limit:,} ({_MOST_RATIO} times its "
            f"size): it is not unpacked, and {_AGAIN}"
        )


def _refuse_unsafe(entry: zipfile.ZipInfo, url: str) -> None:
    # zipfile would silently write such entries under another name; an archive that has them is not what it should be.
    raw = entry.orig_filename
    path, kind = PurePosixPath(raw.replace("\\", "/")), stat.S_IFMT(entry.external_attr >> 16)
    outside = path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else True
    if outside or "\0" in raw:
        raise DataError(f"the archive {url} has an entry outside its folder, {raw!r}: it is not unpacked, and {_AGAIN}")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise DataError(f"the archive {url} has an entry that is not a plain file, {raw!r}: it is not unpacked, and {_AGAIN}")


def _rename(folder: Path, old: str, new: str) -> None:
    """Give files named after the archive the dataset's name, as RecBole does (top folder, ``Amazon_Books.inter`` and so on)."""
    for path in sorted(folder.iterdir()):
        stem = path.stem
        if old in stem and old != new:
            target = path.with_name(stem.replace(old, new) + path.suffix)
            if target.exists():
                raise DataError(f"the archive of dataset {new} holds both {path.name} and {target.name}; {_AGAIN}")
            path.rename(target)
