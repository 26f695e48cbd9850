"""Functions of the user's own, by name: `package.module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mlff_sim.errors import InputError


def find(family: str, argument: str, returns: str) -> Callable[[], Any]:
    """The function behind `package.module:function`, or `file.py:function`, which runs the file.

    Args:
        family: key of the registry, for the messages.
        argument: what follows it and a colon.
        returns: what the function is meant to return, in words.

    Raises:
        InputError: the module or file cannot be imported, or has no such callable.
    """
    name = f"{family}:{argument}"
    where, _, attribute = argument.rpartition(":")
    if not where or not attribute:
        raise InputError(f"'{name}' is incomplete; write {family}:package.module:factory or {family}:file.py:factory.")
    try:
        found = getattr(_file(where) if where.endswith(".py") else importlib.import_module(where), attribute)
    except Exception as error:  # a user's file can fail with anything
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        hint = "does the file run by itself?" if where.endswith(".py") else "is the module on the Python path?"
        raise InputError(f"'{name}' cannot be loaded ({reason}); {hint}") from error
    if not callable(found):
        raise InputError(f"'{name}' is no callable; it must take no argument and return {returns}.")
    return found  # type: ignore[no-any-return]


def _file(where: str) -> ModuleType:
    """Run a file as a module whose name is its own: dataclasses, pickles and compilers look a class up by it."""
    path = Path(where).resolve()
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module
