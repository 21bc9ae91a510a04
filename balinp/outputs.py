"""What can be refused about the files that a command is to write before any work begins."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from .errors import InvalidArgumentError


def check_outputs(outputs: Sequence[str | None], inputs: Sequence[str]) -> None:
    """Refuse, before the work, outputs that could not be written or would overwrite an input or each other."""
    taken = {Path(name).resolve() for name in inputs}
    for name in outputs:
        if name is None:
            continue
        path = Path(name).resolve()
        if path in taken:
            raise InvalidArgumentError(f"{name} would overwrite another file of this command; choose another name")
        taken.add(path)
        if not path.parent.is_dir():
            raise InvalidArgumentError(f"cannot write {name}: there is no folder {path.parent}; create it first")
        if path.is_dir():
            raise InvalidArgumentError(f"cannot write {name}: it is a folder; give a file name")
        if path.exists() and not path.is_file():  # a device would be replaced by the renamed file
            raise InvalidArgumentError(f"cannot write {name}: it is no ordinary file; give a file name")
        try:  # a folder may be said to be writable and take no file: /proc to root
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
                pass
        except OSError as error:
            reason = "no permission" if isinstance(error, PermissionError) else error.strerror or error
            raise InvalidArgumentError(
                f"cannot write {name}: {reason} in {path.parent}; choose another folder"
            ) from error
