"""What ``fuzz.py`` feeds: sound models and tables, random damage to tables, JSON and bytes. All follow from a seed."""

from __future__ import annotations

import copy
import csv
import io
import json
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from balinp import BALIClassifier, BALIRegressor
from balinp.checkpoint import CHECKPOINT
from balinp.files import read_arrays, write_arrays
from balinp.persistence import save_estimator
from balinp.schema import Schema
from balinp.table import read_table

Generator = np.random.Generator

NUMBERS = (0, -1, 1, 2, 3, 0.5, -0.0, 1e-300, 1e300, 1e9, 10**9, 10**400, 2**31, 2**63, 2**64, -(2**63), float("nan"))
NUMBERS += (float("inf"), -float("inf"))
TEXTS = ("", " ", "0", "nan", "ü", "\0", "a" * 300, "../x", "seed", "test", "float32", "float64", "PCG64", "MT19937")
TEXTS += ("relu", "tanh", "Gaussian", "Categorical", "BALIRegressor", "BALIClassifier", "1e999", "{", "__class__")
JUNK: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [0], [None, "a"], {"a": 1}, {"name": 3})
CELLS = (
    "",
    "nan",
    "NA",
    "inf",
    "-inf",
    "1e999",
    "1e308",
    "-1e308",
    "1e-320",
    "1_000",
    "0x1",
    "1,5",
    '"',
    '""',
    '"a',
    "ü",
)
CELLS += (
    "\ufeff",
    "\0",
    "a\nb",
    "a\rb",
    "1" * 400,
    "٣",
    "½",
    " 1 ",
    "+1",
    "1.",
    ".5",
    "True",
    "None",
    "#N/A",
    "red",
    "2",
    "0",
)


@dataclass
class Corpus:
    """Sound models (fitted, saved with their columns) and the tables they were fitted on."""

    folder: Path
    models: list[Any] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    members: list[dict[str, np.ndarray]] = field(default_factory=list)
    tables: list[bytes] = field(default_factory=list)
    schemas: list[Schema] = field(default_factory=list)
    checkpoints: list[tuple[int, bytes]] = field(default_factory=list)  # which model's, the file

    @classmethod
    def make(cls, folder: Path) -> Corpus:
        """Regression, two outputs in float32, text labels, a linear model; tables of numbers and text, 24 rows."""
        corpus = cls(folder)
        quick = {"max_iterations": 3, "draws": 3, "random_state": 0}
        cases: list[tuple[Any, list[str]]] = [
            (BALIRegressor((2,), **quick), ["y"]),
            (BALIRegressor((2,), predictive="linearized", **quick), ["y", "a"]),
            (BALIClassifier((2, 2), **quick), ["label"]),
            (BALIRegressor((), shared_noise=True, **quick), ["a"]),
        ]
        for index, (model, targets) in enumerate(cases):
            path = folder / f"sound.{index}.csv"
            path.write_text(_table(index))
            table = read_table(path)
            schema = Schema.from_table(table, targets, "classification" if targets == ["label"] else "regression")
            X, y = schema.encode(table), schema.target(table)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(X.astype(np.float32), y.astype(np.float32)) if index == 1 else model.fit(X, y)
            model.history_ = [replace(record, seconds=0.0) for record in model.history_]  # the same bytes every time
            save_estimator(model, folder / f"sound.{index}.npz", schema.to_json())
            with np.load(folder / f"sound.{index}.npz") as file:
                corpus.members.append({name: file[name] for name in file.files})
            corpus.models.append(model)
            corpus.files.append((folder / f"sound.{index}.npz").read_bytes())
            corpus.tables.append(path.read_bytes())
            corpus.schemas.append(schema)
            corpus.checkpoints += [(index, content) for content in _checkpoints(model, X, y, folder / "sound.ck")]
        return corpus

    def fit_data(self, index: int) -> tuple[Any, Any]:
        """What the model of that number was fitted to."""
        schema = self.schemas[index]
        table = read_table(self.folder / f"sound.{index}.csv", schema.text_columns)
        return schema.encode(table), schema.target(table)


def _checkpoints(model: Any, X: Any, y: Any, path: Path) -> list[bytes]:
    """Checkpoints of the fit in mini-batches: amid a pass, and of all that was done."""
    amid: list[bytes] = []

    def copied(*_: Any) -> None:  # is called when a pass has ended and the file is still of the batch before
        amid.append(path.read_bytes())

    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clone(model).set_params(batch_size=5).fit(X, y, callbacks=copied, checkpoint=path, every=0)
    return [_timeless(content, path) for content in (amid[0], path.read_bytes())]


def _timeless(content: bytes, path: Path) -> bytes:
    """The checkpoint with no seconds spent, so that its bytes are always the same."""
    path.write_bytes(content)
    header, arrays = read_arrays(path, CHECKPOINT)
    for part in header["parts"].values():
        for timed in (part, *part["history"]):
            timed["seconds"] = 0.0
    write_arrays(path, CHECKPOINT, header, arrays)
    return path.read_bytes()


def clone(model: Any) -> Any:
    """The model, not fitted."""
    return type(model)(**model.get_params())


def _table(seed: int) -> str:
    generator, text = np.random.default_rng(seed), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["a", "b", "colour", "label", "y"])
    for _ in range(24):
        a, b, y = generator.standard_normal(3)
        colour, label = generator.choice(["red", "green", "blü"]), generator.choice(["no", "yes"])
        writer.writerow([f"{a:.4g}", f"{b:.4g}", colour, label, f"{y:.4g}"])
    return text.getvalue()


def mutated_table(corpus: Corpus, generator: Generator) -> bytes:
    """A damaged CSV: random bytes, damaged cells, rows or header, or damaged bytes of a sound one."""
    content = corpus.tables[generator.integers(len(corpus.tables))]
    kind = generator.random()
    if kind < 0.05:
        return generator.bytes(generator.integers(0, 200))
    if kind < 0.1:
        letters = list('a1,"\n\r ;\t._-eü')
        return "".join(generator.choice(letters, generator.integers(0, 200))).encode()
    if kind < 0.3:
        return damaged_bytes(content, generator)
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(generator.integers(1, 4)):
        rows = _damaged_rows(rows, generator)
    separator = str(generator.choice([",", ";", "\t"], p=[0.9, 0.05, 0.05]))
    ending = str(generator.choice(["\n", "\r\n", "\r"], p=[0.8, 0.1, 0.1]))
    if generator.random() < 0.5:  # raw, so that stray quotes and line ends get through
        return ending.join(separator.join(row) for row in rows).encode()
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=ending).writerows(rows)
    coding = str(generator.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"], p=[0.85, 0.05, 0.05, 0.05]))
    return text.getvalue().encode(coding, "replace")


def mutated_schema(corpus: Corpus, generator: Generator) -> tuple[int, Any]:
    """(which model, its column list damaged)."""
    index = int(generator.integers(len(corpus.schemas)))
    value = json.loads(json.dumps(corpus.schemas[index].to_json()))
    for _ in range(generator.integers(1, 3)):
        value = damaged_json(value, generator)
    return index, value


def damaged_bytes(content: bytes, generator: Generator) -> bytes:
    """Flipped, cut, inserted, repeated or overwritten bytes, one to three times."""
    data = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        if not data:
            break
        at, size = int(generator.integers(len(data))), int(generator.integers(1, 16))
        kind = generator.integers(6)
        if kind == 0:
            data[at] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            data[at] = int(generator.integers(256))
        elif kind == 2:
            del data[at : None if generator.random() < 0.3 else at + size]
        elif kind == 3:
            data[at:at] = generator.bytes(size)
        elif kind == 4:
            data[at:at] = data[at : at + size]
        else:
            data[at : at + size] = bytes([int(generator.choice([0, 255, 127]))]) * size
    return bytes(data)


def damaged_json(value: Any, generator: Generator) -> Any:
    """One place of a JSON value replaced, removed, added to, doubled or nested."""
    value = copy.deepcopy(value)
    if generator.random() < 0.02:
        return JUNK[generator.integers(len(JUNK))]
    parent, key = _place(value, generator)
    if parent is None:
        return value
    kind = generator.integers(10)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 1:
        parent["extra key"] = JUNK[generator.integers(len(JUNK))]
    elif kind == 2:
        for _ in range(int(generator.choice([1, 5, 300]))):
            parent[key] = [parent[key]]
    elif kind == 3 and isinstance(parent[key], (int, float)):
        parent[key] = -parent[key]
    else:
        parent[key] = JUNK[generator.integers(len(JUNK))]
    return value


def _place(value: Any, generator: Generator) -> tuple[Any, Any]:
    """A random (container, key) inside a JSON value, any depth."""
    parent, key, here = None, None, value
    while isinstance(here, (dict, list)) and here:
        keys: Any = list(here) if isinstance(here, dict) else range(len(here))
        parent, key = here, keys[generator.integers(len(keys))]
        here = here[key]
        if generator.random() < 0.25:
            break
    return parent, key


def _damaged_rows(rows: list[list[str]], generator: Generator) -> list[list[str]]:
    rows = [list(row) for row in rows]
    if not rows:
        return rows
    kind, i = generator.integers(9), int(generator.integers(len(rows)))
    j = int(generator.integers(len(rows[i]))) if rows[i] else 0
    junk = CELLS[generator.integers(len(CELLS))]
    if kind <= 2 and rows[i]:
        rows[i][j] = junk
    elif kind == 3:
        del rows[i]
    elif kind == 4 and rows[i]:
        del rows[i][j]
    elif kind == 5:
        rows[i].insert(j, junk)
    elif kind == 6:
        rows.insert(i, list(rows[i]) if generator.random() < 0.5 else [])
    elif kind == 7:  # a whole column
        for row in rows[int(generator.integers(2)) :]:
            if j < len(row):
                row[j] = junk if generator.random() < 0.9 else row[j]
    else:
        generator.shuffle(rows[0])
    return rows
