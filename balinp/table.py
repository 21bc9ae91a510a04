"""Tables on disk: a CSV with a header, read into columns; every refusal names the line, the column and the remedy."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from .errors import InvalidArgumentError

MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
_WRITTEN = re.compile(  # a number with at least one of: a currency, a percent sign, a comma or an apostrophe
    r"(?=.*[$€£¥%,'’])[$€£¥]?\s*[-+]?\d+(?:[,.'’\u00a0 ]\d+)*\s*[$€£¥%]?"
)
_DECIMAL = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FEW = 10  # different cells that may be names of kinds, like 5% and 10%
_CHUNK = 512  # rows parsed at once: their text stays in the cache, where the file's would fill the memory


@dataclass(frozen=True)
class Table:
    """A CSV file in memory.

    columns: name → (n,) float64 where every cell reads as a number (nan and inf among them), else (n,) objects, the
    cells as text without surrounding blanks. lines (n,): the line of the file, from 1, that each row begins on.
    separator: what stands between its cells.
    """

    path: str
    columns: dict[str, np.ndarray]
    lines: np.ndarray
    separator: str = ","

    def __len__(self) -> int:
        return len(self.lines)

    def require(self, names: Collection[str], why: str) -> None:
        """Raises InvalidArgumentError naming those of ``names`` that are no column; ``why`` says who asks for them."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            there = listed(list(self.columns))
            raise InvalidArgumentError(f"{self.path} has no column {listed(missing)} ({why}); its columns are {there}")

    def place(self, row: int, name: str) -> str:
        """Where a cell stands, in words; ``row`` counts from 0."""
        return f"{self.path}, line {self.lines[row]}, column {name!r}"

    def is_text(self, name: str) -> bool:
        """Whether a column is text: some cells, but not most of them, are no numbers.

        A column that mixes a few other cells into numbers is more likely damaged than meant. Raises
        InvalidArgumentError for it and for a missing cell.
        """
        values = self.columns[name]
        if values.dtype != object:
            return False
        self.text(name)
        self._refuse_written_numbers(name)
        known = {cell: _is_number(cell) for cell in set(values)}
        numbers = [known[cell] for cell in values]
        if len(numbers) > sum(numbers) > len(numbers) / 2:
            row = numbers.index(False)
            raise InvalidArgumentError(
                f"{self.place(row, name)}: {shown(values[row])} is not a number, but most cells of the column are; "
                f"correct the cell (if the column is meant as text, let no cell look like a number)"
            )
        return True

    def numbers(self, name: str) -> np.ndarray:
        """A column as finite float64, (n,). Raises InvalidArgumentError naming the first cell that is none."""
        values = self.columns[name]
        if values.dtype == object:
            for row, cell in enumerate(values):
                self._refuse_missing(row, name, cell)
                if not _is_number(cell):
                    raise InvalidArgumentError(
                        f"{self.place(row, name)}: {shown(cell)} is not a number; correct the cell"
                    )
            values = values.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.argmin(finite))
            self._refuse_missing(row, name, "" if np.isnan(values[row]) else "inf")
            raise InvalidArgumentError(
                f"{self.place(row, name)}: the cell is infinite; write a finite number or delete the line"
            )
        return values

    def text(self, name: str) -> np.ndarray:
        """A text column as objects (n,). Raises InvalidArgumentError naming the first missing cell.

        A column of numbers must have been asked for as text when reading; its original writing is lost otherwise.
        """
        values = self.columns[name]
        if any(cell.lower() in MISSING for cell in set(values)):
            for row, cell in enumerate(values):
                self._refuse_missing(row, name, cell)
        return values

    def _refuse_written_numbers(self, name: str) -> None:
        """Refuse cells like 12%, $3.40, 1,234 or 3,5: numbers to people, categories to no one."""
        values = self.columns[name]
        different = set(values)
        # where the comma is free to be a decimal sign, a column that would be numbers with it is one, however few
        others = [] if self.separator == "," else [cell for cell in different if not _is_number(cell)]
        decimal = len(others) > 0 and all(_DECIMAL.fullmatch(cell) for cell in others)
        few = len(different) <= _FEW or sum(bool(_WRITTEN.fullmatch(c)) for c in different) <= len(different) / 2
        if few and not decimal:
            return
        sign = _DECIMAL if decimal else _WRITTEN
        row = next(row for row, cell in enumerate(values) if sign.fullmatch(cell) and not _is_number(cell))
        raise InvalidArgumentError(
            f"{self.place(row, name)}: {shown(values[row])} reads as a number to people only; write plain numbers like "
            f"1234.5 in this column, without signs of units, thousands or decimal commas, or, if it is an input, leave "
            f"it out with --drop"
        )

    def _refuse_missing(self, row: int, name: str, cell: str) -> None:
        if cell.lower() in MISSING:
            values = self.columns[name]
            texts = values.dtype == object
            count = sum(other.lower() in MISSING for other in values) if texts else int(np.isnan(values).sum())
            first = f", the first of {count} in this column" if count > 1 else ""
            raise InvalidArgumentError(
                f"{self.place(row, name)}: the cell is missing{first}; fill it in, delete the line, or, if it is an "
                f"input, leave the column out with --drop (a category that looks missing, like NA or none, wants "
                f"another name)"
            )


def read_table(path: str | Path, text: Collection[str] = ()) -> Table:
    """The CSV file at ``path``: UTF-8 (a byte-order mark is fine), a header, any kind of line end.

    Cells are separated by commas, or by semicolons or tabs if those alone cut header and first row alike; the decimal
    sign is a point throughout.

    The columns named in ``text`` stay text even where all cells are numbers. Lines of nothing or of blanks are skipped.
    Raises InvalidArgumentError, with the line where there is one, for a file that cannot be read or is no such table.
    """
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise InvalidArgumentError(f"cannot read {name}: {reason}; give the path of a readable CSV file") from error
    if b"\0" in data:
        raise InvalidArgumentError(f"{name} is a binary or UTF-16 file, not a CSV; save the table as 'CSV UTF-8'")
    table, late = _read(name, data, set(text))
    if late:  # columns whose first chunks were numbers: their writing ("007") is read again, now as text
        table, _ = _read(name, data, set(text) | late)
    return table


def _read(path: str, data: bytes, text: set[str]) -> tuple[Table, set[str]]:
    """The table, and the columns that turned out to be text only after some chunks of numbers."""
    separator = _separator(path, data)
    rows = _rows(path, data, separator)
    header = next((cells for _, cells in rows if cells), None)
    if header is None:
        raise InvalidArgumentError(f"{path} is empty; give a CSV file with a header and rows")
    names = _names(path, header, separator)
    parts: list[list[np.ndarray]] = [[] for _ in names]
    lines, late = array("q"), set()
    checked = _checked(path, rows, len(names), separator, lines)
    while chunk := list(islice(checked, _CHUNK)):
        for name, part, cells in zip(names, parts, zip(*chunk)):
            numbers = None if name in text else _numbers(cells)
            if numbers is None and name not in text:
                late |= {name} if part else set()
                text = text | {name}
            part.append(np.array([cell.strip() for cell in cells], dtype=object) if numbers is None else numbers)
    if not lines:
        raise InvalidArgumentError(f"{path} has a header but no rows; add rows below it")
    columns = {name: np.concatenate(part) for name, part in zip(names, parts)}
    return Table(path, columns, np.array(lines), separator), late


def _separator(path: str, data: bytes) -> str:
    """The one of _SEPARATORS that cuts header and first row into as many cells, two or more; the comma if it does, and
    where none or several others do."""
    fit = []
    for separator in _SEPARATORS:
        try:
            first = [cells for _, cells in islice(filter(lambda row: row[1], _rows(path, data, separator)), 2)]
        except InvalidArgumentError:  # a quote within a cell, to this separator
            continue
        if len({len(cells) for cells in first}) == 1 and len(first[0]) > 1:
            fit.append(separator)
    return fit[0] if "," in fit or len(fit) == 1 else ","


def _rows(path: str, data: bytes, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row, blank lines as no cells."""
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"{path}, line {_undecodable_line(data)}: not UTF-8 text; save the table as 'CSV UTF-8'"
        ) from error
    except csv.Error as error:
        raise InvalidArgumentError(f"{path}, line {line}: {error}; check the quotes from this line on") from error


def _undecodable_line(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 1


def _names(path: str, header: list[str], used: str) -> list[str]:
    names = [name.strip() for name in header]
    if all(_is_number(name) for name in names):
        line = shown(used.join(header))
        raise InvalidArgumentError(
            f"{path} has no header: its first line {line} is all numbers; add a line of column names"
        )
    for position, name in enumerate(names, 1):
        if not name:
            pandas = "; of pandas' to_csv it is the index: index=False leaves it out" if position == 1 else ""
            raise InvalidArgumentError(f"{path}: column {position} has no name in the header; give it one{pandas}")
        if name in names[: position - 1]:
            raise InvalidArgumentError(f"{path}: the header has the name {name!r} twice; rename one of them")
    for separator in ";\t|":
        if len(names) == 1 and separator in names[0]:
            raise InvalidArgumentError(
                f"{path}: cells must be separated by commas (or by semicolons or tabs, alone and as often in the first "
                f"row), but the header {shown(names[0])} uses {separator!r}; save the table with commas"
            )
    return names


def _checked(
    path: str, rows: Iterator[tuple[int, list[str]]], width: int, separator: str, lines: array[int]
) -> Iterator[list[str]]:
    """The rows that have cells, each as wide as the header; their line numbers are appended to ``lines``."""
    blank = 0
    for line, cells in rows:
        if not cells or (width > 1 and len(cells) == 1 and not cells[0].strip()):
            blank = blank or line
            continue
        if len(cells) != width:
            raise InvalidArgumentError(
                f"{path}, line {line}: {len(cells)} cells where the header has {width}; complete the line, or put "
                f"cells with {_SEPARATORS[separator]} in double quotes"
            )
        if blank and width == 1:  # in a table of one column, a blank line may stand for a missing cell
            raise InvalidArgumentError(f"{path}, line {blank}: the line is blank; fill in its cell or delete it")
        lines.append(line)
        yield cells


def _numbers(cells: tuple[str, ...]) -> np.ndarray | None:
    """The cells as float64, None if any is no number; 1_000, a number to Python, is none here."""
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        return None
    return None if "_" in "".join(cells) else values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def listed(names: list[str], most: int = 12) -> str:
    """Names in quotes, the first ``most`` of them."""
    return ", ".join(repr(name) for name in names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def shown(cell: str, most: int = 40) -> str:
    """A cell in quotes, cut where it is long."""
    return repr(cell if len(cell) <= most else cell[:most] + "…")
