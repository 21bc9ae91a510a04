"""A module that the user names: one that Python finds, or a file."""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .errors import InvalidArgumentError


def module_named(name: str, role: str) -> ModuleType:
    """The module called ``name``, or in the file ``name`` if it ends in .py; raises InvalidArgumentError, which says
    the ``role`` it was meant for, if it cannot be imported."""
    try:
        if not name.endswith(".py"):
            return import_module(name)
        path = Path(name)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ImportError(f"there is no file {name}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # dataclasses look there
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise InvalidArgumentError(f"cannot import the {role} {name}: {error}") from error
    return module
