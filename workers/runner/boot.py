"""Start the algorithm in its own process: `python boot.py ROOT/src/NAME.py [DESCRIPTOR [check]]`.

The module is imported as the platform imported it: as `src.NAME`, in the root of the repository, so that a `__main__`
block does not run. If it started the kit, the kit serves. Otherwise `apply` is served, with `load` if there is one. A
byte on the descriptor says that the process waits for requests. With `check` nothing is loaded or served: it is written
when the module was imported. Loads other files of the runner by their path, under names of their own.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import os
import sys
import traceback
from importlib.machinery import ModuleSpec
from types import ModuleType  # noqa: TC003 - one list of imports
from typing import Any, Callable  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

PACKAGE = "src"
NO_ALGORITHM = (
    "The module src.{name} has no function apply and does not start the development kit. Define apply(input), or end "
    "the module with ADK(apply).init(), where ADK comes from `from Algorithmia import ADK`. A block "
    '`if __name__ == "__main__":` does not run here.'
)
EXITED = "The module src.{name} ended its process while it was imported, with sys.exit or exit: remove that call."

Function = Callable[..., Any]


class KitStarted(BaseException):
    """Raised in a check when the module starts the kit: it has been imported as far as it needs to be."""


class Requests(io.TextIOWrapper):
    """Standard input of the algorithm. Reading from it says that the process has loaded, or ends a check."""

    def __init__(self, descriptor: int, process: Process) -> None:
        super().__init__(open(descriptor, "rb"), encoding="utf-8")  # noqa: SIM115 - open as long as the process
        self._process = process

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        self._process.started()
        return super().readline(size)

    def read(self, size: int | None = -1, /) -> str:
        self._process.started()
        return super().read(size)


class Process:
    """The state of this process: whether the kit was started, and the descriptor that says so."""

    def __init__(self, descriptor: int | None, check: bool) -> None:
        self.has_started = False
        self._descriptor = descriptor
        self._check = check
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def started(self) -> None:
        """Record that requests are being read.

        Raises:
            KitStarted: in a check.
        """
        self.has_started = True
        if self._check:
            raise KitStarted
        self.announce()

    def announce(self) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, b"!")
            os.close(self._descriptor)
            self._descriptor = None

    def starting(self, start: Function) -> Function:
        """Return a start of the kit that records it; in a check it does not load."""

        @functools.wraps(start)
        def recorded(*arguments: Any, **keywords: Any) -> Any:
            self.has_started = True
            if self._check:
                raise KitStarted
            return start(*arguments, **keywords)

        return recorded


def load_compat() -> ModuleType:
    """Return the runner's module `compat`, which every interpreter of the algorithm has if its environment is ours."""
    name = "longshore_compat"
    if name not in sys.modules:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compat.py")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("The runner's files are not complete: " + path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def take_input(process: Process) -> Requests:
    """Take the requests away from descriptor 0, so that no program which the algorithm starts can read them."""
    descriptor = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return Requests(descriptor, process)


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


def mend_kit(process: Process, kit: ModuleType) -> None:
    """Have the installed kit record its start, read binary requests in every version, and have what it lacks."""

    def mend_class(name: str, start: str, module: ModuleType) -> None:
        kind = getattr(module, name)
        setattr(kind, start, process.starting(getattr(kind, start)))
        convert = getattr(kind, "wrap_binary_data", None)
        if convert is not None:  # before algorithmia-adk 1.1 the text of a binary request was not decoded
            kind.wrap_binary_data = lambda _self, data: kit.decoded(data)

    def complete_client(module: ModuleType) -> None:
        for name in ("ADK", "handler"):
            if not callable(getattr(module, name, None)):
                setattr(module, name, getattr(kit, name))

    after_import = load_compat().after_import
    after_import("adk.ADK", functools.partial(mend_class, "ADK", "init"))
    after_import("Algorithmia.handler", functools.partial(mend_class, "Handler", "serve"))
    after_import("Algorithmia", complete_client)


def put_on_path(path: list[str], root: str, source: str) -> None:
    """Make the source importable after the standard library and installed packages, as the platform did.

    A file of the source named like one of those then breaks neither the kit nor itself: `src/spacy.py` imports spacy.
    """
    runner = os.path.dirname(os.path.abspath(__file__))
    path[:] = [entry for entry in path if entry and os.path.abspath(entry) not in (runner, root, source)]
    path += [root, source]


def provide_package(source: str) -> None:
    """Put the package `src` into `sys.modules`: no installed package of this name is imported in its place."""
    initial = os.path.join(source, "__init__.py")
    if os.path.exists(initial):
        spec = importlib.util.spec_from_file_location(PACKAGE, initial, submodule_search_locations=[source])
    else:
        spec = ModuleSpec(PACKAGE, None, is_package=True)
        spec.submodule_search_locations = [source]
    if spec is None:
        raise ImportError("Not a package: " + source)
    package = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(package)


def import_algorithm(script: str) -> ModuleType:
    """Import the script as `src.NAME`.

    No lock of the import system is held meanwhile: a kit that is started in the module never returns, and its threads
    may import the module.
    """
    source, file = os.path.split(script)
    provide_package(source)
    name = os.path.splitext(file)[0]
    full_name = PACKAGE + "." + name
    if full_name in sys.modules:  # src/__init__.py has imported it
        return sys.modules[full_name]
    spec = importlib.util.spec_from_file_location(full_name, script)
    if spec is None:
        raise ImportError("Not a Python file: " + script)
    module = sys.modules[full_name] = importlib.util.module_from_spec(spec)
    setattr(sys.modules[PACKAGE], name, module)
    with open(script, "rb") as opened:
        code = compile(opened.read(), script, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - running the algorithm is what this process is for
    return module


def calls_load(script: str) -> bool:
    """Return whether the module calls its `load` itself while it is imported, as in `model = load()`.

    The platform called `load` only for sources with the kit: such a module may not stand a second call.
    """
    with open(script, "rb") as opened:
        statements = ast.parse(opened.read()).body
    for statement in statements:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(statement, ast.If) and "__name__" in (
            getattr(node, "id", "") for node in ast.walk(statement.test)
        ):
            continue
        if any(isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load" for node in ast.walk(statement)):
            return True
    return False


def find_start(module: ModuleType, script: str, kit: ModuleType) -> Function | None:
    """Return the function that serves an imported module: of the kit's object that it made, or for its `apply`."""
    for value in reversed(list(vars(module).values())):
        for kind in type(value).__mro__:
            package = str(kind.__module__).partition(".")[0]
            if package in ("adk", "Algorithmia", kit.__name__) and kind.__name__ in ("ADK", "Handler"):
                start: Function = value.init if kind.__name__ == "ADK" else value.serve
                return start
    apply, load = getattr(module, "apply", None), getattr(module, "load", None)
    if not callable(apply):
        return None
    root = os.path.dirname(os.path.dirname(script))
    loads = kit.is_load(load, root) and (kit.needs_state(apply) or not calls_load(script))
    served: Function = kit.ADK(apply, load if loads else None).init
    return served


def run(script: str, process: Process, check: bool) -> None:
    """Import the algorithm and serve it, or only check that it could be served; exit with a reason if not."""
    kit = load_compat().runner_module("kit")
    kit.ADK.requests = sys.stdin = sys.__stdin__ = take_input(process)  # type: ignore[misc]
    kit.ADK.init = kit.ADK.serve = process.starting(kit.ADK.init)
    traceback.format_exception = accept_etype(traceback.format_exception)
    mend_kit(process, kit)
    name = os.path.splitext(os.path.basename(script))[0]
    start: Function | None = None
    try:
        module = import_algorithm(script)
        if not process.has_started:
            start = find_start(module, script, kit)
    except KitStarted:
        pass
    except SystemExit as error:
        if process.has_started or error.code not in (None, 0):
            raise
        sys.exit(EXITED.format(name=name))
    if start is None and not process.has_started:
        sys.exit(NO_ALGORITHM.format(name=name))
    if check:
        process.announce()
    elif start is not None:
        start()


def main() -> None:
    """Run the script that the command line names; print an exception that ends it without the frames of this module."""
    script = os.path.abspath(sys.argv[1])
    source = os.path.dirname(script)
    descriptor = int(sys.argv[2]) if len(sys.argv) > 2 else None
    check = sys.argv[3:] == ["check"]
    put_on_path(sys.path, os.path.dirname(source), source)
    load_compat().install()
    sys.argv[:] = [script]
    try:
        run(script, Process(descriptor, check), check)
    except Exception as error:  # noqa: BLE001 - printed as by the interpreter
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals is globals():
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        sys.exit(1)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # A process of multiprocessing, which has our path: it imports src.NAME if it needs something of it.
    for entry in reversed(sys.path):
        if os.path.basename(entry) == PACKAGE:
            provide_package(entry)
            break
