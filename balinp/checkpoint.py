"""Checkpoints: a file in which a fit keeps where it stands, and from which the same fit goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .averaging import AveragedMeans
from .backend import Backend
from .errors import BALIError, InvalidArgumentError, ModelFileError
from .files import Kind, part_files, read_arrays, write_arrays
from .packing import (
    checked_count,
    checked_number,
    packed_state,
    unpacked_generator,
    unpacked_record,
    unpacked_state,
    unpacked_weights,
)
from .rows import gathered
from .settings import Settings
from .state import BALIState
from .training import Standing

CHECKPOINT = Kind(
    "balinp-checkpoint", 1, "balinp checkpoint", "give a path without a file, or one that a fit's checkpoint= wrote"
)
EVERY = 60.0  # seconds
ROWS = 2**16  # of an array at most, evenly spaced, tell whether it is the one that the fit began with
_ENDINGS = (None, "converged", "stopped", "budget")


class Checkpoint:
    """The file at ``path``, written whole at most ``every`` seconds, when a fit ends and when it is interrupted.

    Pass it to ``balinp.fit(checkpoint=...)``; estimators make their own. The same fit with the same path goes on where
    the file stands: killed at any moment (between writing and renaming, too), it comes to the bits of a fit that never
    was; a fit that is finished returns at once (delete the file to start anew). The file holds several fits by name,
    as an estimator makes several. ``every=0``: after every iteration.

    Raises ModelFileError when the file is damaged, foreign, or cannot be written (which is tried at once; the old one
    stays as it is), InvalidArgumentError when ``every`` is no number from 0, or, in a fit, when the file is of another
    one.   (eq:resume)
    """

    def __init__(self, path: str | Path, every: float = EVERY):
        if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 <= every < float("inf"):
            raise InvalidArgumentError(f"every must be a number of seconds, 0 or more, got {every!r}")
        if not isinstance(path, (str, Path)):
            raise InvalidArgumentError(f"checkpoint must be a path, got {path!r}")
        self.path, self.every = Path(path), float(every)
        self._parts: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
        self._begun: dict[str, Any] | None = None
        if self.path.exists():
            self._read()
            for rest in part_files(self.path):  # of a process that was killed while it wrote
                rest.unlink(missing_ok=True)
        else:
            self._write()
        self._written = time.monotonic()

    def begin(self, what: dict[str, Any], generator: np.random.Generator) -> None:
        """Note what is being fitted (JSON values by name) and with what random numbers; of a file that has begun,
        check the first and put ``generator`` where it was then.   (eq:resume)"""
        what = json.loads(json.dumps(what, default=lambda value: value.item()))
        if self._begun is None:
            self._begun = {"what": what, "generator": generator.bit_generator.state}
            return
        with self._damage():
            begun, start = dict(self._begun["what"]), unpacked_generator(self._begun["generator"]).bit_generator.state
        self._refuse(sorted(name for name in what if what[name] != begun.get(name)))
        if start["bit_generator"] != generator.bit_generator.state["bit_generator"]:
            self._refuse(["random_state"])
        generator.bit_generator.state = start

    def part(self, name: str) -> Part:
        """The place of the fit called ``name``, to pass to ``balinp.fit(checkpoint=...)``."""
        return Part(self, name)

    def resume(self, subject: Mapping[str, Any], backend: Backend, name: str = "fit") -> Standing | None:
        """The standing of the fit called ``name``, or None; refuses a ``subject`` other than the one kept.
        (eq:resume)"""
        prints = {key: fingerprint(value, backend) for key, value in subject.items()}
        if name not in self._parts:
            self._parts[name] = {"subject": prints, "layers": None}, {}
            return None
        header, arrays = self._parts[name]
        self._refuse(sorted(key for key in prints if prints[key] != header["subject"].get(key)))
        with self._damage():
            return None if header["layers"] is None else _unpacked(header, arrays, backend, subject)

    def keep(self, standing: Callable[[], Standing], now: bool, name: str = "fit") -> None:
        """Write ``standing()`` if ``now``, or when the last writing was ``every`` seconds ago.   (eq:resume)"""
        if now or time.monotonic() - self._written >= self.every:
            header, arrays = _packed(standing())
            self._parts[name] = {"subject": self._parts[name][0]["subject"], **header}, arrays
            self._write()

    def _write(self) -> None:
        kept = {name: part for name, part in self._parts.items() if part[0]["layers"] is not None}
        header = {"begun": self._begun, "parts": {name: header for name, (header, _) in kept.items()}}
        arrays = {f"{name}/{key}": value for name, (_, part) in kept.items() for key, value in part.items()}
        write_arrays(self.path, CHECKPOINT, header, arrays)
        self._written = time.monotonic()

    def _read(self) -> None:
        header, arrays = read_arrays(self.path, CHECKPOINT)
        with self._damage():
            self._begun = header["begun"]
            for name, part in header["parts"].items():
                own = {key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")}
                self._parts[name] = {**part, "subject": dict(part["subject"])}, own

    def _damage(self) -> _Damage:
        return _Damage(self.path)

    def _refuse(self, different: list[str]) -> None:
        if different:
            raise InvalidArgumentError(
                f"checkpoint {self.path} is of another fit, with other {', '.join(different)}; fit with what it began "
                f"with, give another path, or delete the file to start anew"
            )


@dataclass(frozen=True)
class Part:
    """The place of one of several fits in a checkpoint."""

    checkpoint: Checkpoint
    name: str

    def resume(self, subject: Mapping[str, Any], backend: Backend) -> Standing | None:
        """As Checkpoint.resume."""
        return self.checkpoint.resume(subject, backend, self.name)

    def keep(self, standing: Callable[[], Standing], now: bool) -> None:
        """As Checkpoint.keep."""
        self.checkpoint.keep(standing, now, self.name)


@dataclass(frozen=True)
class _Damage:
    """``with _Damage(path):`` whatever a damaged content causes inside becomes a ModelFileError."""

    path: Path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        causes = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, BALIError)
        if isinstance(error, causes):
            raise ModelFileError(
                f"{self.path} is damaged: {type(error).__name__}: {error}; delete it to start anew"
            ) from error


def fingerprint(value: Any, backend: Backend) -> Any:
    """A JSON value that tells ``value``, an argument of a fit, from another one.

    Of an array: shape, dtype and a digest of ``ROWS`` evenly spaced rows (all, if there are no more).
    """
    if value is None:
        return None
    if isinstance(value, tuple):
        return [fingerprint(part, backend) for part in value]
    if isinstance(value, np.random.Generator):
        return type(value.bit_generator).__name__
    if isinstance(value, Settings):
        plain = {f.name: getattr(value, f.name) for f in fields(value)}
        return json.loads(json.dumps(plain, default=lambda number: number.item()))
    if hasattr(value, "layers"):  # a state
        return [value.iteration, *(fingerprint(mean, backend) for mean in value.means)]
    if hasattr(value, "widths"):  # a network
        return [list(value.widths), value.activation]
    if not hasattr(value, "shape"):  # a likelihood
        parts = {name: part for name, part in vars(value).items() if name != "backend"}
        host = {name: np.asarray(backend.to_host(backend.asarray(part))).tolist() for name, part in parts.items()}
        return [type(value).__name__, host]
    step = max(1, -(-len(value) // ROWS))
    digest, block = hashlib.sha256(), 2048 * step
    for start in range(0, len(value), block):
        rows = backend.to_host(backend.asarray(gathered(value[start : start + block : step])))
        digest.update(np.ascontiguousarray(rows).tobytes())
    return [list(value.shape), str(value.dtype), digest.hexdigest()]


def _packed(standing: Standing) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    header, arrays = packed_state(standing.state)
    names = ("batches", "losses", "rows", "drawn", "generator", "seconds", "ended")
    header |= {name: getattr(standing, name) for name in names}
    header["history"] = [asdict(record) for record in standing.history]
    header["dtype"] = str(standing.state.means[0].dtype)
    averaged = standing.averaged or AveragedMeans((), 0)
    header["averaged"] = averaged.count
    arrays |= {f"averaged.{l}": standing.state.mlp.backend.to_host(mean) for l, mean in enumerate(averaged.means)}
    return header, arrays


def _unpacked(
    header: dict[str, Any], arrays: dict[str, np.ndarray], backend: Backend, subject: Mapping[str, Any]
) -> Standing:
    """The standing of a fit of ``subject``, whose digests are of a header that may say something else all the same."""
    dtype = np.dtype({"float32": np.float32, "float64": np.float64}[header["dtype"]])
    if header["ended"] not in _ENDINGS:
        raise ModelFileError(f"ended must be one of {_ENDINGS}, got {header['ended']!r}")
    state = unpacked_state(header, arrays, dtype, backend)
    standing = Standing(
        state,
        tuple(unpacked_record(record) for record in header["history"]),
        checked_count(header, "batches"),
        checked_number(header, "losses"),
        checked_number(header, "rows", 0),
        unpacked_generator(header["drawn"]).bit_generator.state,
        unpacked_generator(header["generator"]).bit_generator.state,
        checked_number(header, "seconds", 0),
        header["ended"],
        _unpacked_averages(header, arrays, state, subject["settings"]),
    )
    mlp, likelihood = standing.state.mlp, standing.state.likelihood
    size, batch_size = len(subject["x"]), subject["settings"].batch_size
    kinds = [state["bit_generator"] for state in (standing.drawn, standing.generator)]
    for what, sound in {
        "dtype": dtype == subject["x"].dtype,
        "network": (mlp.widths, mlp.activation) == (subject["network"].widths, subject["network"].activation),
        "likelihood": _form(likelihood) == _form(subject["likelihood"]),
        "batches": standing.batches < (1 if batch_size is None else -(-size // batch_size)),
        "generator": kinds == 2 * [type(subject["generator"].bit_generator).__name__],
        "history": len(standing.history) > 0 or standing.ended is None,
    }.items():
        if not sound:
            raise ModelFileError(f"{what} is not that of the fit")
    return standing


def _unpacked_averages(
    header: dict[str, Any], arrays: dict[str, np.ndarray], state: BALIState, settings: Settings
) -> AveragedMeans | None:
    """The averages of a fit with these ``settings`` that stands at ``state``."""
    count = checked_count(header, "averaged")
    most = state.iteration if settings.averaging is not None and state.is_sampled(settings) else 0
    if count > most or {name for name in arrays if name.startswith("averaged.")} != {
        f"averaged.{l}" for l in range(len(state.layers) if count else 0)
    }:
        raise ModelFileError("averaged means are not those of the fit")
    if not count:
        return None
    return AveragedMeans(unpacked_weights("averaged", state.mlp, arrays, state.means[0].dtype), count)


def _form(likelihood: Any) -> tuple[type, int | None]:
    """The kind of a likelihood, and of Gaussian noise whether it is one for all outputs."""
    return type(likelihood), getattr(getattr(likelihood, "noise_variance", None), "ndim", None)
