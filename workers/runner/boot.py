"""Interpreter start-up of the algorithm's process: `python boot.py ROOT/src/NAME.py`.

Mends what the development kit needs, then runs the script the way the platform did: as a module of the package `src`
of the repository (the platform's documentation tells people to write `from .helper import …`, see "Algorithms with
multiple files"), in the repository's root, and as `__main__` besides. This is what `python -m src.NAME` does, but it
takes this very file even where another package of that name is installed. Imports nothing of the runner.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import traceback
from importlib.machinery import ModuleSpec
from typing import Any, Callable  # noqa: UP035 - Python 3.8 cannot subscript collections.abc


def accept_old_keywords(format_exception: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Give `traceback.format_exception` back the keyword `etype`, which Python 3.10 took away.

    `algorithmia-adk` 1.2.4, the newest, calls it with `etype=`, `value=`, `tb=` to report an algorithm's exception;
    refused, an algorithm that raises would kill its own process. Every other form of the call passes through.
    """

    @functools.wraps(format_exception)
    def accepting(*arguments: Any, **keywords: Any) -> list[str]:
        if "etype" in keywords:
            arguments = (keywords.pop("etype"), *arguments)
        return format_exception(*arguments, **keywords)

    return accepting


def put_on_path(path: list[str], root: str, source: str) -> None:
    """Make the source importable: before installed packages, but after the standard library.

    So a file of the source called `json.py` or `types.py` does not break the kit, as it did not on the platform.
    """
    runner = os.path.dirname(os.path.abspath(__file__))
    library = os.path.dirname(os.path.abspath(os.__file__))
    path[:] = [entry for entry in path if entry and os.path.abspath(entry) != runner]
    standard = [
        position for position, entry in enumerate(path) if entry in (library, os.path.join(library, "lib-dynload"))
    ]
    after = max(standard) + 1 if standard else 0
    path[after:after] = [source, root]


def run(script: str) -> None:
    """Run the script as `__main__`; it is importable as `src.NAME` too, which then is the same module."""
    source = os.path.dirname(script)
    package = os.path.basename(source)
    if not os.path.exists(os.path.join(source, "__init__.py")):
        # Without an __init__.py, an installed package of the same name would win, wherever it lies on the path.
        space = ModuleSpec(package, None, is_package=True)
        space.submodule_search_locations = [source]
        sys.modules[package] = importlib.util.module_from_spec(space)
    name = package + "." + os.path.splitext(os.path.basename(script))[0]
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None or spec.loader is None:
        raise ImportError("Not a Python file: " + script)
    module = importlib.util.module_from_spec(spec)
    module.__name__ = "__main__"
    sys.modules["__main__"] = sys.modules[name] = module
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - running the algorithm is what this process is for


def main() -> None:
    """Run the script that the command line names; an exception that ends it is shown without our own frames."""
    script = os.path.abspath(sys.argv[1])
    source = os.path.dirname(script)
    ourselves = sys.modules["__main__"]  # held: its names must outlive its place in sys.modules
    put_on_path(sys.path, os.path.dirname(source), source)
    traceback.format_exception = accept_old_keywords(traceback.format_exception)
    sys.argv[:] = [script]
    try:
        run(script)
    except Exception as error:  # noqa: BLE001 - shown as the interpreter would
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals is ourselves.__dict__:
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        sys.exit(1)


if __name__ == "__main__":
    main()
