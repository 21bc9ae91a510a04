"""Files that are whole or not there: written beside, then renamed; npz arrays with a JSON header, never pickle."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import ModelFileError

_PART = ".part"  # ends the name of a file that is being written


@dataclass(frozen=True)
class Kind:
    """A kind of file: the format that its header names, the highest version known here, what it is called, and how
    people come by one."""

    format: str
    version: int
    name: str
    remedy: str


def write_atomically(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write`` on a temporary file beside ``path`` and rename it: ``path`` holds the old content or all of the
    new.

    Raises ModelFileError naming the path when the folder cannot be written.
    """
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=_PART, delete=False
        ) as file:
            temporary = file.name
            write(file)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise ModelFileError(
            f"cannot write {target}: {error.strerror or error}; choose a writable folder with room"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def part_files(path: Path) -> list[Path]:
    """What processes killed in the midst of ``write_atomically(path, ...)`` have left beside it."""
    return [p for p in path.parent.iterdir() if p.name.startswith(f".{path.name}.") and p.name.endswith(_PART)]


def write_arrays(path: str | Path, kind: Kind, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write ``arrays`` and the JSON ``header``, which is given the kind's format and version; raises as
    write_atomically does."""
    header = {"format": kind.format, "format_version": kind.version, **header}
    text = json.dumps(header, default=lambda array: array.tolist())  # some generators' states hold arrays
    packed = {**arrays, "header": np.frombuffer(text.encode(), dtype=np.uint8)}
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **packed))


def read_arrays(path: str | Path, kind: Kind) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a file of that kind; raises ModelFileError for a missing, damaged, foreign or newer one."""
    try:
        with open(path, "rb") as raw:
            arrays = _members(raw)
        header = json.loads(arrays.pop("header").tobytes())
        foreign = header["format"] != kind.format
        version = int(header["format_version"])
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no file {path}; {kind.remedy}") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error
    except Exception as error:  # zipfile, zlib, NumPy's header parser and json each have their own for foreign bytes
        raise ModelFileError(
            f"{path} is not a {kind.name}, or is truncated ({type(error).__name__}: {error}); {kind.remedy}"
        ) from error
    if foreign:
        raise ModelFileError(f"{path} is not a {kind.name} but {header['format']!r}; {kind.remedy}")
    if version > kind.version:
        raise ModelFileError(
            f"{path} has format version {version}; this balinp reads up to {kind.version}: upgrade balinp"
        )
    return header, arrays


def _members(raw: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays in an open npz file as np.savez writes it: not compressed, so they cannot outgrow the file itself."""
    with zipfile.ZipFile(raw) as archive:
        entries = archive.infolist()
    size = raw.seek(0, os.SEEK_END)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise ValueError("its members are compressed, or claim to be larger than the file")
    raw.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, on odd headers
        with np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
