"""What the command remembers of a table: which columns are inputs and targets, and how text becomes numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from .errors import InvalidArgumentError, ModelFileError
from .table import Table, listed, shown

TASKS = ("auto", "regression", "classification")
MAX_CATEGORIES = 100
MAX_CLASSES, ROWS_PER_CLASS = 10, 10  # a target of whole numbers with few values, each in many rows, is class labels


@dataclass(frozen=True)
class Column:
    """An input column: numbers (categories None) with the range of the fit, or text, one-hot encoded over its sorted
    categories."""

    name: str
    categories: tuple[str, ...] | None = None
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Schema:
    """The columns a model was fitted on. task is "regression" or "classification"; text_target: labels are text."""

    columns: tuple[Column, ...]
    targets: tuple[str, ...]
    task: str
    text_target: bool = False

    @classmethod
    def from_table(cls, table: Table, targets: Sequence[str], task: str, drop: Sequence[str] = ()) -> Schema:
        """The schema of ``table`` with every column but ``targets`` and ``drop`` as an input.

        Categories are those of the whole table: they tell nothing of the target, and a rare one that only test rows
        have must not end the fit. Raises InvalidArgumentError naming the column (and line) and the remedy.
        """
        _check_names(table, targets, drop)
        names = [name for name in table.columns if name not in targets and name not in drop]
        if not names:
            raise InvalidArgumentError(f"{table.path} has no input columns left beside {listed([*targets, *drop])}")
        columns = tuple(
            Column(name, _categories(table, name)) if table.is_text(name) else Column(name, None, _range(table, name))
            for name in names
        )
        return cls(columns, tuple(targets), task, task == "classification" and table.is_text(targets[0]))

    @property
    def text_columns(self) -> set[str]:
        """The columns that must be read as text, for read_table."""
        text = {c.name for c in self.columns if c.categories is not None}
        return text | set(self.targets) if self.text_target else text

    @property
    def inputs(self) -> int:
        """The number of inputs of the network: one per number column, one per category of a text column."""
        return sum(1 if c.categories is None else len(c.categories) for c in self.columns)

    def encode(self, table: Table) -> np.ndarray:
        """The inputs (n, inputs), float64; columns are found by name, others are ignored.

        Raises InvalidArgumentError for a missing column, a missing or unreadable cell, and an unseen category.
        """
        table.require([c.name for c in self.columns], "the model was fitted on it")
        X, start = np.zeros((len(table), self.inputs)), 0
        for column in self.columns:
            if column.categories is None:
                X[:, start] = table.numbers(column.name)
                start += 1
            else:
                X[np.arange(len(table)), start + _category_index(table, column)] = 1
                start += len(column.categories)
        return X

    def outside(self, table: Table) -> dict[str, np.ndarray]:
        """The number columns in which rows lie outside the range of the fit, each with a mask (n,) of those rows."""
        found = {}
        for column in self.columns:
            if column.range is not None:
                values, (low, high) = table.numbers(column.name), column.range
                found[column.name] = (values < low) | (values > high)
        return {name: where for name, where in found.items() if where.any()}

    def target(self, table: Table) -> np.ndarray:
        """The target: numbers (n,), or (n, targets) if several; class labels (n,) as text or whole numbers.

        Raises InvalidArgumentError for a missing column and a missing or unreadable cell.
        """
        table.require(self.targets, "it is the target")
        if self.task == "regression":
            values = [table.numbers(name) for name in self.targets]
            return values[0] if len(values) == 1 else np.stack(values, axis=1)
        if self.text_target:
            return np.array(list(table.text(self.targets[0])), dtype=str)
        numbers = table.numbers(self.targets[0])
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53)
        if not whole.all():
            row = int(np.argmin(whole))
            raise InvalidArgumentError(
                f"{table.place(row, self.targets[0])}: {numbers[row]:g} is no class label (labels are text or whole "
                f"numbers); use --task regression"
            )
        return numbers.astype(np.int64)

    def check_model(self, model: Any) -> None:
        """Raises ModelFileError when a fitted estimator is not one of this schema: the file was put together wrong."""
        outputs = model.state_.mlp.widths[-1]
        regression = hasattr(model, "y_scaler_")
        fits = model.n_features_in_ == self.inputs and regression == (self.task == "regression")
        if not fits or (outputs if regression else 1) != len(self.targets):
            raise ModelFileError("the model's columns do not fit its network; fit and save it again")

    def to_json(self) -> dict[str, Any]:
        """The schema as a JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Schema:
        """The schema that ``to_json`` wrote. Raises ModelFileError for anything else."""
        try:
            columns = tuple(
                Column(
                    str(c["name"]),
                    None if c["categories"] is None else tuple(map(str, c["categories"])),
                    None if c.get("range") is None else (float(c["range"][0]), float(c["range"][1])),
                )
                for c in value["columns"]
            )
            schema = cls(columns, tuple(map(str, value["targets"])), str(value["task"]), bool(value["text_target"]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ModelFileError(
                "the model does not say which columns it was fitted on; use one written by 'balinp fit --out'"
            ) from error
        return schema


def choose_task(table: Table, targets: Sequence[str], task: str = "auto") -> tuple[str, str]:
    """The task and why, in words.

    "auto": text → classification; numbers → regression, unless one target holds two distinct values, or up to 10 each
    in at least 10 rows, all whole numbers. Raises InvalidArgumentError for an unknown target or task, and for several
    targets to classify.
    """
    _check_names(table, targets, ())
    if task not in TASKS:
        raise InvalidArgumentError(f"task must be one of {TASKS}, got {task!r}")
    if len(targets) > 1:
        if task == "classification":
            raise InvalidArgumentError(f"classification takes one target, got {listed(list(targets))}; fit each alone")
        return "regression", "several targets"
    if task != "auto":
        return task, f"as --task {task} says"
    if table.is_text(targets[0]):
        return "classification", "the target is text"
    values, counts = np.unique(table.numbers(targets[0]), return_counts=True)
    if _are_labels(values) and (len(values) == 2 or counts.min() >= ROWS_PER_CLASS):
        return (
            "classification",
            f"the target has {len(values)} values, all whole numbers; --task regression changes this",
        )
    return "regression", "the target is numbers; --task classification changes this"


def _are_labels(values: np.ndarray) -> bool:
    """Whether distinct ``values`` could be classes: few whole numbers."""
    return 2 <= len(values) <= MAX_CLASSES and bool(np.all(values == np.floor(values)))


def oddities(table: Table, schema: Schema, train: np.ndarray) -> list[str]:
    """What in a table to fit, on its rows ``train``, is allowed but seldom meant, a sentence each: a column that counts
    the rows, dates as categories, inputs that never vary in training, a constant target."""
    found = []
    for column in schema.columns:
        if column.categories is not None:
            found += _odd_categories(column, set(np.asarray(table.text(column.name))[train]))
        elif np.ptp(table.numbers(column.name)[train]) == 0:
            value = f"{table.numbers(column.name)[train[0]]:g}"
            found.append(f"column {column.name!r} is {value} in every training row: what it does is not learnt")
        if column.range is not None and len(table) > 1 and np.all(np.diff(table.numbers(column.name)) == 1):
            found.append(f"column {column.name!r} counts the rows; if it is only an id, leave it out with --drop")
    for name in schema.targets if schema.task == "regression" else ():
        values = table.numbers(name)
        if np.all(values == values[0]):
            found.append(f"the target {name!r} is {values[0]:g} in every row: there is nothing to learn")
        elif len(schema.targets) == 1 and len(different := np.unique(values)) > 2 and _are_labels(different):
            found.append(
                f"the target {name!r} holds {len(different)} whole numbers, some of them in few rows, and is taken for "
                f"an amount; if they are classes, --task classification says so"
            )
    return found


def _odd_categories(column: Column, seen: set[str]) -> list[str]:
    found, categories = [], column.categories or ()
    unseen = [category for category in categories if category not in seen]
    if unseen:
        some = f"{len(unseen)} of its categories are" if len(unseen) > 1 else "a category is"
        found.append(f"column {column.name!r}: {some} in no training row ({listed(unseen, 5)})")
    if all(_is_date(category) for category in categories):
        found.append(
            f"column {column.name!r} holds dates, each a category of its own, so that no other date can be predicted; "
            f"write year, month or day as numbers, or leave it out with --drop"
        )
    return found


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_names(table: Table, targets: Sequence[str], drop: Sequence[str]) -> None:
    table.require(targets, "asked for as --target")
    table.require(drop, "asked for as --drop")
    for name in targets:
        if list(targets).count(name) > 1:
            raise InvalidArgumentError(f"--target {name} is given twice; name each target once")
        if name in drop:
            raise InvalidArgumentError(f"{name!r} is both --target and --drop; choose one")


def _categories(table: Table, name: str) -> tuple[str, ...]:
    categories = sorted(set(table.text(name)))
    if len(categories) == len(table) or len(categories) > MAX_CATEGORIES:
        many = "a different text in every row" if len(categories) == len(table) else f"{len(categories)} categories"
        raise InvalidArgumentError(
            f"{table.path}, column {name!r}: {many} (at most {MAX_CATEGORIES} can be encoded); leave it out with "
            f"--drop {name!r}"
        )
    return tuple(categories)


def _range(table: Table, name: str) -> tuple[float, float]:
    values = table.numbers(name)
    return float(values.min()), float(values.max())


def _category_index(table: Table, column: Column) -> np.ndarray:
    categories = column.categories or ()
    position = {category: index for index, category in enumerate(categories)}
    index = np.array([position.get(cell, -1) for cell in table.text(column.name)])
    if index.min() < 0:
        row = int(np.argmin(index))
        raise InvalidArgumentError(
            f"{table.place(row, column.name)}: the category {shown(table.columns[column.name][row])} was not seen at "
            f"fit (seen: {listed(list(categories))}); correct the cell, or fit again with rows of it"
        )
    return index
