"""Put back what the standard library has dropped and algorithms of 2018 to 2022, or the libraries they pin, still use.

Only what is missing is added, and nothing is replaced that works: each name does what it did in the last Python that
had it. A module is completed when it is imported (`after_import`), so that this costs no start-up time. Whole modules
are found last of all (`workers/runner/removed.py`): an installed package of the same name comes first. Applies to every
interpreter of the algorithm's process tree, by `startup/sitecustomize.py`. Imports nothing else of the runner.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Callable, Dict, List  # noqa: UP035 - Python 3.8 cannot subscript dict at run time

Change = Callable[[ModuleType], None]

_changes: Dict[str, List[Change]] = {}  # noqa: UP006 - as above


def after_import(name: str, change: Change) -> None:
    """Have `change` called with the module each time it was imported; at once if it is imported already."""
    _changes.setdefault(name, []).append(change)
    if name in sys.modules:
        _apply(name, sys.modules[name])


def _apply(name: str, module: ModuleType) -> None:
    for change in _changes[name]:
        with contextlib.suppress(Exception):  # an import must not fail because something cannot be added
            change(module)


class ImportWatcher:
    """A finder that finds nothing itself: it has the modules of `after_import` changed after their import."""

    def __init__(self) -> None:
        self._finding: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return what the other finders find; see `importlib.abc.MetaPathFinder`."""
        if name not in _changes or name in self._finding:
            return None
        self._finding.add(name)
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find else None
                if spec is not None:
                    _watch(name, spec.loader)
                    return spec
        finally:
            self._finding.discard(name)
        return None


def _watch(name: str, loader: Any) -> None:
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _apply(name, module)

    with contextlib.suppress(AttributeError, TypeError):  # a loader without attributes of its own
        loader.exec_module = exec_module


class RemovedModules:
    """The last finder: stand-ins for modules that the standard library had, if nothing else has them."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        """Return the stand-in for a removed module; see `importlib.abc.MetaPathFinder`."""
        if name not in ("imp", "pipes", "cgi", "imghdr", "xml.etree.cElementTree", "distutils"):
            return None
        if name == "distutils" and importlib.util.find_spec("setuptools._distutils") is None:
            return None
        return importlib.util.spec_from_loader(name, runner_module("removed").Loader())


def runner_module(name: str) -> Any:
    """Return a module of the runner, loaded from its path under a name that no other package has."""
    full_name = "longshore_" + name
    if full_name not in sys.modules:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
        spec = importlib.util.spec_from_file_location(full_name, path)
        if spec is None or spec.loader is None:
            raise ImportError("The runner's files are not complete: " + path)
        module = sys.modules[full_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full_name]


def install() -> None:
    """Put everything back; no-op if that has been done in this interpreter."""
    if any(isinstance(finder, ImportWatcher) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, ImportWatcher())
    sys.meta_path.append(RemovedModules())
    for name, change in runner_module("replacements").CHANGES.items():
        after_import(name, change)
