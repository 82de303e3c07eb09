"""
Files of links, read into rows and written out of them: CSV, JSON and JSON lines.

Rules of this file
1. Files are hostile. Bytes, rows, columns, cells and the depth of JSON have bounds, and a file beyond one is refused as a whole
   with the number, before anything is made of it.
2. Nothing is lost silently. A row with more or fewer cells than the header, or an object that is none, is a row with a
   complaint; an unclosed quote, which would swallow the rest of the file, is refused.
3. Text is UTF-8, with or without a byte order mark. Another encoding is said, never guessed: a guess would spoil names unseen.
4. Rows are counted as a spreadsheet shows them: the header is row 1. In JSON the first object is row 1.
5. Objects within objects become columns with a dot (`meta.validUntil`), but not in files of our own; lists stay.
6. Written CSV is opened in spreadsheets, which run cells that start with `=`, `+`, `-`, `@`, tab or line break. Such a cell gets
   an apostrophe before it, and so does one that starts with an apostrophe; reading our own files takes exactly one away, so that
   what was written comes back (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, assert_never, get_args

import msgspec

from goodanalytics.errors import InvalidInput

FileFormat = Literal["csv", "json", "jsonl"]

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ROWS: Final = 200_000
MAX_VALUES: Final = 5_000_000
"""Separators in the whole file. What lies between two takes up to a hundred bytes of memory, however short it is."""

MAX_COLUMNS: Final = 200
MAX_CELL: Final = 65_536  # characters
MAX_DEPTH: Final = 4
"""How deep objects may lie in objects."""

ENCODINGS: Final = ("utf-8", "utf-16", "windows-1252", "iso-8859-1")

_RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_LISTS: Final = ("links", "shortUrls", "shortUrl", "data", "result", "urls")
"""Where the answers of APIs hold their list, outermost first."""

_TOTALS: Final = ("total", "totalItems", "total_links", "totalCount")
"""What they call the number of all links, of which the list may be one page."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One link of a file.

    Attributes:
        number: As rule 4 counts.
        values: By the column's name as it stands in the file. From CSV all are texts.
        complaint: Why the row cannot be used; empty when it can.
    """

    number: int
    values: Mapping[str, Any]
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """
    A file, read.

    Attributes:
        columns: In the order in which they are met.
        notes: What the file says of itself that its reader should know.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    notes: Sequence[str] = field(default=())


def read(data: bytes, encoding: str = "utf-8", *, is_ours: bool = False) -> Table:
    """
    The rows of a file; what kind of file it is shows at its beginning.

    Args:
        encoding: One of `ENCODINGS`.
        is_ours: Whether our own export wrote it (rule 6).

    Raises:
        InvalidInput: It cannot be read, is empty, or is larger than we take.
    """
    text = _text(data, encoding)
    start = text.lstrip()[:1]
    if not start:
        raise InvalidInput("The file is empty", where="file")
    depth = 1 if is_ours else MAX_DEPTH
    if start == "[":
        return _of_objects(_decoded(text), [], depth)
    if start == "{":
        lines = text.split("\n")  # not splitlines: JSON may hold other line breaks
        if is_ours or (len(lines) > 1 and _is_object(lines[0])):
            return _of_lines(lines, depth)
        return _of_answer(_decoded(text))
    return _of_csv(text, is_ours=is_ours)


class Writer:
    """
    Writes rows as a file in UTF-8: its `start`, each `row`, its `end`.

    In CSV `None` is an empty cell, and what is no text is JSON.
    """

    def __init__(self, columns: Sequence[str], kind: FileFormat) -> None:
        if kind not in get_args(FileFormat):
            raise InvalidInput(f"format is {kind!r}; use {', '.join(get_args(FileFormat))}", where="format")
        self._columns = columns
        self._kind = kind
        self._mark = b"["

    def start(self) -> bytes:
        """What stands before the first row."""
        return _line([*self._columns]) if self._kind == "csv" else b""

    def row(self, values: Mapping[str, Any]) -> bytes:
        """One row."""
        match self._kind:
            case "csv":
                return _line([_cell(values.get(name)) for name in self._columns])
            case "jsonl":
                return msgspec.json.encode(values) + b"\n"
            case "json":
                mark, self._mark = self._mark, b","
                return mark + b"\n" + msgspec.json.encode(values)
            case _:
                assert_never(self._kind)

    def end(self) -> bytes:
        """What stands behind the last row."""
        if self._kind != "json":
            return b""
        return b"[]\n" if self._mark == b"[" else b"\n]\n"


def safe(cell: str) -> str:
    """
    *cell* as no spreadsheet runs it.

    >>> safe("=1+1"), safe("'quoted"), safe("plain")
    ("'=1+1", "''quoted", 'plain')
    """
    return f"'{cell}" if cell.startswith((*_RUN_BY_SPREADSHEETS, "'")) else cell


def unsafe(cell: str) -> str:
    """*cell* as it was before `safe`."""
    return cell.removeprefix("'")


def _text(data: bytes, encoding: str) -> str:
    if len(data) > MAX_BYTES:
        raise InvalidInput(
            f"The file has {len(data):,} bytes; at most {MAX_BYTES:,} are read. Split it", where="file"
        )
    if encoding not in ENCODINGS:
        raise InvalidInput(f"encoding is {encoding!r}; use {', '.join(ENCODINGS)}", where="encoding")
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        advice = f"Spreadsheets often save as windows-1252 or utf-16: name the encoding, one of {', '.join(ENCODINGS[1:])}"
        raise InvalidInput(
            f"The file is not {encoding}: byte {data[error.start]:#04x} in line {line} ({error.reason}). {advice}",
            where="file",
        ) from None
    if max(map(text.count, ",;\t")) > MAX_VALUES:
        raise InvalidInput(f"The file has more than {MAX_VALUES:,} values; split it", where="file")
    if "\0" in text:
        raise InvalidInput(
            "The file holds NUL characters; it is no text, or utf-16 without its mark", where="file"
        )
    return text


# CSV -----------------------------------------------------------------------------------------------------------------


def _of_csv(text: str, *, is_ours: bool) -> Table:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(lines)]
        _check_header(header)
        for number, cells in enumerate(lines, 2):
            if not any(cell.strip() for cell in cells):
                continue
            _check_count(len(rows))
            rows.append(_row(number, header, cells, is_ours=is_ours))
    except csv.Error as error:
        raise InvalidInput(
            f"The file breaks off or is no CSV near line {lines.line_num}: {error}. Is a quote not closed?",
            where="file",
        ) from None
    return Table(rows, header)


def _row(number: int, header: Sequence[str], cells: Sequence[str], *, is_ours: bool) -> Row:
    if len(cells) != len(header):
        return Row(
            number,
            dict(zip(header, cells, strict=False)),
            f"has {len(cells)} cells where the header has {len(header)}",
        )
    if any(len(cell) > MAX_CELL for cell in cells):
        return Row(number, {}, f"has a cell of more than {MAX_CELL:,} characters")
    return Row(number, dict(zip(header, (unsafe(c) if is_ours else c for c in cells), strict=True)))


def _delimiter(text: str) -> str:
    """What divides the header: the mark that is in it most often. Spreadsheets write semicolons in half of Europe."""
    header = text.lstrip().partition("\n")[0]
    return max((",", ";", "\t"), key=header.count)


def _check_header(header: Sequence[str]) -> None:
    if len(header) > MAX_COLUMNS:
        raise InvalidInput(
            f"The file has {len(header)} columns; at most {MAX_COLUMNS} are read", where="file"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise InvalidInput(f"The column {twice[0]!r:.80} is there twice; rename one", where="file")


def _check_count(count: int) -> None:
    if count >= MAX_ROWS:
        raise InvalidInput(f"The file has more than {MAX_ROWS:,} links; split it", where="file")


def _line(cells: Sequence[str]) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow([safe(cell) for cell in cells])  # RFC 4180
    return written.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# JSON ----------------------------------------------------------------------------------------------------------------


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"The file is no JSON: {error}", where="file") from None


def _is_object(line: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def _of_lines(lines: Sequence[str], depth: int) -> Table:
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        _check_count(len(rows))
        try:
            rows.append(_object(number, msgspec.json.decode(line), depth))
        except (msgspec.DecodeError, RecursionError) as error:
            rows.append(Row(number, {}, f"is no JSON: {error}"))
    return _joined(rows, [])


def _of_answer(answer: Any) -> Table:
    """An API's answer: its list, and a note when that is one page of several."""
    found, total = answer, None
    while isinstance(found, Mapping):
        if "pagination" in found and isinstance(found["pagination"], Mapping):
            total = _total(found["pagination"], total)
        total = _total(found, total)
        name = next((name for name in _LISTS if isinstance(found.get(name), Mapping | list)), None)
        if name is None:
            break
        found = found[name]
    if isinstance(found, Mapping):
        values = list(found.values())  # YOURLS has {"link_1": {…}, "link_2": {…}}
        found = values if values and all(isinstance(value, Mapping) for value in values) else [found]
    notes = []
    if total is not None and total > len(found):
        notes.append(f"The file holds {len(found):,} of {total:,} links; export the other pages too")
    return _of_objects(found, notes, MAX_DEPTH)


def _total(of: Mapping[str, Any], known: int | None) -> int | None:
    return next((of[name] for name in _TOTALS if isinstance(of.get(name), int)), known)


def _of_objects(found: Any, notes: Sequence[str], depth: int) -> Table:
    if not isinstance(found, list):
        raise InvalidInput("The file holds no list of links", where="file")
    if len(found) > MAX_ROWS:
        raise InvalidInput(
            f"The file has {len(found):,} links; at most {MAX_ROWS:,} are read. Split it", where="file"
        )
    return _joined([_object(number, one, depth) for number, one in enumerate(found, 1)], notes)


def _object(number: int, value: Any, depth: int) -> Row:
    if not isinstance(value, Mapping):
        return Row(number, {}, "is no object")
    flat = dict(_flat(value, "", depth))
    if len(flat) > MAX_COLUMNS:
        return Row(number, {}, f"has {len(flat)} members; at most {MAX_COLUMNS} are read")
    return Row(number, flat)


def _flat(value: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, member in value.items():
        if isinstance(member, Mapping) and member and depth > 1:
            yield from _flat(member, f"{before}{name}.", depth - 1)
        else:
            yield f"{before}{name}", member


def _joined(rows: Sequence[Row], notes: Sequence[str]) -> Table:
    return Table(rows, list(dict.fromkeys(name for row in rows for name in row.values)), notes)
