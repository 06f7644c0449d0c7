"""Start the algorithm's script in its own process: `python boot.py ROOT/src/NAME.py`.

Fixes an incompatibility of the development kit, then runs the script as the platform did: as `__main__`, in the root
of the repository, and as a module of the package `src` (the platform's documentation, "Algorithms with multiple files",
recommends `from .helper import …`). `python -m src.NAME` does the same, but would run the file of an installed package
`src` if there is one. Imports nothing of the runner.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import traceback
from importlib.machinery import ModuleSpec
from typing import Any, Callable  # noqa: UP035 - Python 3.8 cannot subscript collections.abc


def accept_etype(format_exception: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Return a `traceback.format_exception` that takes the keyword `etype`, which Python 3.10 removed.

    `algorithmia-adk` 1.2.4, the newest, calls it with `etype=`, `value=`, `tb=` to report an algorithm's exception.
    Without this, an algorithm that raises would end its own process. Other calls are passed on unchanged.
    """

    @functools.wraps(format_exception)
    def format_with_etype(*arguments: Any, **keywords: Any) -> list[str]:
        if "etype" in keywords:
            arguments = (keywords.pop("etype"), *arguments)
        return format_exception(*arguments, **keywords)

    return format_with_etype


def put_on_path(path: list[str], root: str, source: str) -> None:
    """Make the source importable, before installed packages and after the standard library.

    A file of the source named `json.py` or `types.py` then does not break the kit, as on the platform.
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
    """Run the script as `__main__`; importing it as `src.NAME` gives the same module."""
    source = os.path.dirname(script)
    package = os.path.basename(source)
    if not os.path.exists(os.path.join(source, "__init__.py")):
        # Without an __init__.py, an installed package of the same name is imported instead.
        namespace = ModuleSpec(package, None, is_package=True)
        namespace.submodule_search_locations = [source]
        sys.modules[package] = importlib.util.module_from_spec(namespace)
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
    """Run the script that the command line names; print an exception that ends it without the frames of this module."""
    script = os.path.abspath(sys.argv[1])
    source = os.path.dirname(script)
    boot_module = sys.modules["__main__"]  # a reference, because `run` replaces it in sys.modules
    put_on_path(sys.path, os.path.dirname(source), source)
    traceback.format_exception = accept_etype(traceback.format_exception)
    sys.argv[:] = [script]
    try:
        run(script)
    except Exception as error:  # noqa: BLE001 - printed as by the interpreter
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals is boot_module.__dict__:
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        sys.exit(1)


if __name__ == "__main__":
    main()
