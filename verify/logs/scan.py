"""One pass over a log in constant memory: pieces of the file, counted by a pool of processes, added as they come."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from verify.errors import SubjectError
from verify.logs.command import EXAMPLE
from verify.logs.records import NAMES, NUMBERS, REQUIRED, from_columns, parse
from verify.logs.tally import Examples, LogTally, Settings, count
from verify.progress import track
from verify.workers import Processes

CHUNK = 1 << 22
"""Bytes of text that a process holds at once."""
LONGEST = 1 << 24
"""A line longer than this is cut, and so no record."""
ROWS = 1 << 15
SMALL = 8 * CHUNK
"""A file that is not larger is read by this process alone."""
Job = Callable[[], LogTally]


def scan(path: Path, settings: Settings, workers: int | None = None) -> tuple[LogTally, bool]:
    """The tally of a whole file, and whether an interrupt (Ctrl-C) ended it early: then of what was read by then.

    JSON lines, gzipped or not, and Parquet are told apart by their first bytes. Raises SubjectError where nothing in it
    is a record, and OSError where it cannot be read.
    """
    if not path.is_file():
        raise SubjectError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a file of JSON lines or Parquet"
        )
    with path.open("rb") as file:
        start = file.read(4)
    size = path.stat().st_size
    jobs, total = _parquet(path, settings) if start == b"PAR1" else (_text(path, size, settings), -(-size // CHUNK))
    if start[:2] == b"\x1f\x8b":
        jobs, total = _gzipped(path, size, settings), 0
    at_once = 1 if size <= SMALL else workers or os.cpu_count() or 1
    found, interrupted = LogTally(0), False
    try:
        for tally in track(_spread(jobs, at_once), total or None, f"reading {path.name}"):
            found += tally
    except KeyboardInterrupt:
        interrupted = True
    if not found.n and not interrupted:
        seen = dict(found.examples.lines).get("malformed", "")
        what = f"the first line that is none is {seen}" if found.malformed else "it has no lines"
        raise SubjectError(f"no record in {path}: {what}; a record is a line such as {EXAMPLE}")
    return found, interrupted


def _spread(jobs: Iterable[Job], workers: int) -> Iterator[LogTally]:
    """The results in order, with never more than a few jobs waiting."""
    if workers == 1:
        yield from (job() for job in jobs)
        return
    with Processes(workers) as executor:
        waiting: deque[Future[LogTally]] = deque()
        try:
            for job in jobs:
                waiting.append(executor.submit(job))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise SubjectError("a process that read the log was killed; try again with --workers 1") from None


def _text(path: Path, size: int, settings: Settings) -> Iterator[Job]:
    return (partial(_range, path, start, size, settings) for start in range(0, size, CHUNK))


def _range(path: Path, start: int, size: int, settings: Settings) -> LogTally:
    """The lines that begin in one piece of the file, to their ends."""
    stop = min(start + CHUNK, size)
    with path.open("rb") as file:
        file.seek(max(start - 1, 0))
        data = file.read(stop - max(start - 1, 0))
        if start:  # a line that began before, or the line feed that ended it
            data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
        if data and not data.endswith(b"\n"):
            data += file.readline(LONGEST)
    return _lines(data, (start / size, stop / size), settings)


def _lines(data: bytes, span: tuple[float, float], settings: Settings) -> LogTally:
    return count(parse(data.decode("utf-8", "replace").removeprefix("\ufeff")), span, settings)


def _gzipped(path: Path, size: int, settings: Settings) -> Iterator[Job]:
    """Decompressed here, counted elsewhere. A place in the file is a place in its compressed bytes."""
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
        rest, place = b"", 0.0
        while True:
            data, wrong = _filled(file)
            if wrong:
                yield partial(_broken, f"the compressed data ends early or is damaged ({wrong})")
            reached = raw.tell() / size
            whole, feed, kept = (rest + data).rpartition(b"\n")
            if len(kept) > LONGEST:
                whole, kept = whole + feed + kept, b""
            yield partial(_lines, whole, (place, reached), settings)
            rest, place = kept, reached
            if wrong or not data:
                if rest:
                    yield partial(_lines, rest, (place, 1.0), settings)
                return


def _filled(file: gzip.GzipFile) -> tuple[bytes, str]:
    """The next bytes, a chunk or more, nothing at the end; and what is wrong with those that follow."""
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < CHUNK:
        try:
            pieces.append(file.read1(CHUNK))
        except (EOFError, zlib.error, OSError) as error:
            return b"".join(pieces), str(error)
        if not pieces[-1]:
            break
    return b"".join(pieces), ""


def _broken(what: str) -> LogTally:
    return LogTally(0, malformed=1, examples=Examples((("malformed", what),)))


def _parquet(path: Path, settings: Settings) -> tuple[Iterator[Job], int]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SubjectError(f"{path} is Parquet; pip install 'specproof[logs]', or give JSON lines") from None
    try:
        file = ParquetFile(path)
    except ArrowException as error:
        raise SubjectError(f"{path} is no whole Parquet file: {' '.join(str(error).split())}; write it again") from None
    with file:
        missing = [name for name in REQUIRED if name not in file.schema_arrow.names]
        if missing:
            raise SubjectError(f"{path} lacks the columns {', '.join(missing)}; a record has {', '.join(REQUIRED)}")
        groups = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
    spans, done, every = [], 0, max(sum(groups), 1)
    for rows in groups:
        spans.append((done / every, (done + rows) / every))
        done += rows
    return (partial(_group, path, place, span, settings) for place, span in enumerate(spans)), len(groups)


def _group(path: Path, place: int, span: tuple[float, float], settings: Settings) -> LogTally:
    """One row group, batch by batch."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    found = LogTally(0)
    with ParquetFile(path) as file:
        names = [name for name in (*NUMBERS, *NAMES) if name in file.schema_arrow.names]
        rows, done = max(file.metadata.row_group(place).num_rows, 1), 0
        try:
            for batch in file.iter_batches(ROWS, row_groups=[place], columns=names):
                part = [span[0] + (span[1] - span[0]) * at / rows for at in (done, done + batch.num_rows)]
                columns = {name: _column(batch.column(name), name) for name in names}
                found += count(from_columns(columns), (part[0], part[1]), settings)
                done += batch.num_rows
        except (ValueError, TypeError) as error:
            if isinstance(error, ArrowException):
                return found + _broken(f"row group {place} is damaged ({error})")
            raise SubjectError(f"{path} has a column of the wrong type ({error}); probabilities are numbers") from None
        except (ArrowException, OSError) as error:
            return found + _broken(f"row group {place} is damaged ({error})")
    return found


def _column(column: object, name: str) -> Iterable[object]:
    """As numbers where it is, else as Python objects."""
    if name in NAMES:
        from pyarrow import types

        whole = types.is_integer(column.type) and not column.null_count  # type: ignore[attr-defined]
        return column.to_numpy() if whole else column.to_pylist()  # type: ignore[attr-defined,no-any-return]
    return column.to_numpy(zero_copy_only=False)  # type: ignore[attr-defined,no-any-return]
