"""Reading a dump record by record: plain or gzip, in bounded memory, with every broken line counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import orjson
from isal import igzip, isal_zlib
from tqdm import tqdm

from recbole_hnlm.prepare.escaping import RecordError
from recbole_hnlm.utils.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from recbole_hnlm.prepare.source import Columns, Reader

__all__ = ["FileTally", "read_columns"]

_CHUNK = 64 << 10  # bytes of text read at once: some hundred records, whose objects stay within the processor's cache
_LONGEST_LINE = 64 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_EARLY_CHECK = 1000  # with this many bad records, the share is judged before the end


@dataclass
class FileTally:
    """Counts of one input file.

    Attributes:
        path: the file.
        records: lines that are not blank.
        unreadable: records that could not be parsed; left out.
        mended: records that are not strict JSON but could be read (lone surrogates and bytes that are not UTF-8 became U+FFFD).
        incomplete: records left out because they lack something, by reason.
        first_problem: where and what the first record that was left out is.
    """

    path: Path
    records: int = 0
    unreadable: int = 0
    mended: int = 0
    incomplete: Counter[str] = field(default_factory=Counter)
    first_problem: str = ""

    @property
    def left_out(self) -> int:
        """Records that are not in the output."""
        return self.unreadable + self.incomplete.total()

    def leave_out(self, number: int, record: object, reason: str | None) -> None:
        """Count a record that lacks something, or without a reason one that is not a JSON object; numbers start at 1."""
        if reason is None:
            self.unreadable += 1
        else:
            self.incomplete[reason] += 1
        if not self.first_problem:
            fields = f" (its fields: {', '.join(map(str, record)) or 'none'})" if isinstance(record, dict) else ""
            self.first_problem = f"record {number:,} has {reason or 'no JSON object in it'}{fields}"

    def refuse_if_broken(self, max_broken_share: float, *, at_the_end: bool = True) -> None:
        """Judge the share of records left out.

        Raises:
            DataError: the share is above the limit, or the file held no record; before the end only once 1,000 are bad.
        """
        if at_the_end and not self.records:
            raise DataError(f"{self.path} is empty: expected one JSON record per line; download it again")
        if self.left_out <= max_broken_share * self.records or not (at_the_end or self.left_out >= _EARLY_CHECK):
            return
        raise DataError(
            f"{self.path}: {self.left_out:,} of {self.records:,} records are unreadable or incomplete, above the limit of "
            f"{max_broken_share:.2%}; first, {self.first_problem}. Check --source, or raise --max_broken_share"
        )

    def __str__(self) -> str:
        facts = [f"{self.records:,} records"]
        facts += [f"{self.mended:,} not strict JSON but read"] if self.mended else []
        facts += [f"{self.unreadable:,} unreadable"] if self.unreadable else []
        facts += [f"{count:,} left out: {reason}" for reason, count in self.incomplete.most_common()]
        facts += [f"first left out: {self.first_problem}"] if self.left_out else []
        return "; ".join(facts)


def _chunks(raw: BinaryIO, path: Path) -> Iterator[bytes]:
    zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    raw.seek(0)
    # isal gives no types for its constructor.
    stream = cast("BinaryIO", igzip.IGzipFile(fileobj=raw, mode="rb")) if zipped else raw  # type: ignore[no-untyped-call]
    try:
        while chunk := stream.read(_CHUNK):
            yield chunk
    except EOFError as error:
        raise DataError(f"{path} ends in the middle of its gzip stream: it is truncated; download it again") from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]  # its stub declares no class
        raise DataError(f"{path} is damaged ({error}); download it again") from error


def _line_batches(path: Path, description: str) -> Iterator[list[bytes]]:
    """Yield the lines of a file, many at a time, with a bar over the bytes of the file as it lies on disk."""
    try:
        with (
            path.open("rb") as raw,
            tqdm(total=path.stat().st_size, desc=description, unit="B", unit_scale=True, unit_divisor=1024) as bar,
        ):
            rest = b""
            for chunk in _chunks(raw, path):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                if len(rest) > _LONGEST_LINE:
                    raise DataError(f"{path} has a line of more than {_LONGEST_LINE >> 20} MiB: expected one record per line")
                yield lines
                bar.update(raw.tell() - bar.n)
            yield [rest]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _parsed(lines: list[bytes], unusual: Callable[[bytes], object], tally: FileTally) -> list[Any]:
    """Parse lines, blank ones left out; None stands for one that cannot be parsed."""
    try:
        return list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        pass  # at least one line needs a closer look
    records: list[Any] = []
    for line in lines:
        try:
            records.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            if not line.strip():
                continue
            try:
                record = unusual(line)
            except ValueError:
                record = None
            tally.mended += isinstance(record, dict)
            records.append(record)
    return records


def _understood(read: Reader, records: list[Any], tally: FileTally) -> Columns | None:
    """Read records, counting those that cannot be used; None where none can."""
    if not records:
        return None
    try:
        return read(records)
    except (KeyError, TypeError, RecordError):
        pass  # at least one cannot
    usable = []
    for number, record in enumerate(records, tally.records + 1):
        if not isinstance(record, dict):
            tally.leave_out(number, record, None)
            continue
        try:
            read([record])
        except KeyError as error:
            tally.leave_out(number, record, f"no field {error.args[0]!r}")
        except RecordError as error:
            tally.leave_out(number, record, str(error))
        else:
            usable.append(record)
    return read(usable) if usable else None


def read_columns(
    tally: FileTally,
    description: str,
    read: Reader,
    unusual: Callable[[bytes], object],
    max_broken_share: float,
) -> Iterator[Columns]:
    """Yield the columns of a file with one JSON object per line, many records at a time, in the order of the file.

    Memory: some tens of MiB, whatever the file's size.

    Args:
        tally: names the file and takes the counts.
        description: what the progress bar calls it.
        read: records -> columns.
        unusual: reads a line that is not strict JSON; raises ValueError where it cannot.
        max_broken_share: share of records that may be unreadable or unusable.

    Raises:
        DataError: the file cannot be read, is truncated, damaged or empty, or too much of it is broken.
    """
    for lines in _line_batches(tally.path, description):
        records = _parsed(lines, unusual, tally)
        columns = _understood(read, records, tally)
        tally.records += len(records)
        tally.refuse_if_broken(max_broken_share, at_the_end=False)
        if columns is not None:
            yield columns
    tally.refuse_if_broken(max_broken_share)
