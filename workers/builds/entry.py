"""Find the module of a source that is the algorithm, without running any of it.

It is `src/<algoname of algorithmia.conf>.py`, else `src/<name of the algorithm>.py`, else `src/Algorithm.py`, else the
only module of `src` that has a function `apply` (or, where none has, the only one that makes the kit's object).
"""

import ast
import json
import re
from collections.abc import Callable, Iterator

from shared.errors import ErrorClass, WorkError
from workers.builds.source_tree import SourceTree

CONFIGURATION = "algorithmia.conf"
MAX_CONFIGURATION_BYTES = 64 * 1024
MAX_MODULE_BYTES = 256 * 1024
"""Size of a module up to which it is searched for `apply`; parsing takes a hundred times as much memory."""
MAX_SEARCHED_BYTES = 4 * 1024 * 1024
"""Size of all modules that are searched."""
MAX_NAMES_SHOWN = 20

_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,199}")
_APPLY_IN_TEXT = re.compile(
    rb"^(?:(?:async +)?def +apply\b|apply *=|from +\S+ +import +(?:[^#\n]*\W)?apply\b)", re.MULTILINE
)
_KIT_NAMES = {"ADK", "handler"}


def find_entry(tree: SourceTree, name: str, log: Callable[[str], None]) -> str:
    """Return the name of the algorithm's module in `src`; `log` is told how it was found unless it is the usual one.

    Raises:
        WorkError: there is none, or there are several that it could be (invalid).
    """
    configured = _configured_name(tree, log)
    for module in (configured, name, "Algorithm"):
        if module is not None and tree.is_file(f"src/{module}.py"):
            if module != name:
                log(f"The algorithm's module is src/{module}.py.")
            return module
    found = _candidates(tree)
    if len(found) > 1:
        shown = ", ".join(f"src/{module}.py" for module in found[:MAX_NAMES_SHOWN])
        raise WorkError(
            ErrorClass.INVALID,
            f"the source has no src/{name}.py, and several modules that could be the algorithm: {shown}. Name one in "
            f'{CONFIGURATION} ({{"algoname": "…"}}), or rename it to {name}.py',
        )
    if not found:
        raise WorkError(ErrorClass.INVALID, _missing(tree, name, configured))
    log(f"The algorithm's module is src/{found[0]}.py, the only one that has apply.")
    return found[0]


class _UnusableError(ValueError):
    """Raised when the platform's file cannot be used; the message says why."""


def _configured_name(tree: SourceTree, log: Callable[[str], None]) -> str | None:
    """Return the `algoname` of the platform's file; one that cannot be used is ignored, and the log says why."""
    try:
        module = _algoname(tree) if tree.exists(CONFIGURATION) else None
    except _UnusableError as error:
        log(f"{CONFIGURATION} is ignored: {error}.")
        return None
    if module is not None and not tree.is_file(f"src/{module}.py"):
        log(f"The algoname in {CONFIGURATION} is ignored: there is no src/{module}.py.")
    return module


def _algoname(tree: SourceTree) -> str | None:
    if not tree.is_file(CONFIGURATION):
        raise _UnusableError("it is not a regular file")
    if tree.size(CONFIGURATION) > MAX_CONFIGURATION_BYTES:
        raise _UnusableError(f"it has more than {MAX_CONFIGURATION_BYTES} bytes")
    try:
        content = json.loads(tree.read(CONFIGURATION).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise _UnusableError("it is not JSON") from None
    module = content.get("algoname") if isinstance(content, dict) else None
    if module is not None and not (isinstance(module, str) and _MODULE.fullmatch(module)):
        raise _UnusableError("its algoname is not the name of a module")
    return module


def _candidates(tree: SourceTree) -> list[str]:
    found: dict[str, list[str]] = {"apply": [], "kit": []}
    bytes_left = MAX_SEARCHED_BYTES
    for file in tree.names_in("src"):
        name, path = file.removesuffix(".py"), f"src/{file}"
        if not (file.endswith(".py") and _MODULE.fullmatch(name) and tree.is_file(path)):
            continue
        if name.endswith("_test") or name == "__init__":
            continue
        if tree.size(path) > min(MAX_MODULE_BYTES, bytes_left):
            continue
        bytes_left -= tree.size(path)
        for kind in _offers(tree.read(path)):
            found[kind].append(name)
    return found["apply"] or found["kit"]


def _offers(content: bytes) -> set[str]:
    """Return "apply" if the module has that name at its top level, "kit" if it calls ADK or handler there."""
    try:
        return {kind for statement in _top_level(ast.parse(content).body) for kind in _of_statement(statement)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Written for another version of Python, or wrong: importing it says what is wrong with it.
        return {"apply"} if _APPLY_IN_TEXT.search(content) else set()


def _top_level(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run at import, also those inside of conditions."""
    for statement in statements:
        yield statement
        match statement:
            case ast.If(body=body, orelse=other):
                yield from _top_level([*body, *other])
            case ast.With(body=body):
                yield from _top_level(body)
            case ast.Try(body=body, handlers=handlers, orelse=other, finalbody=final):
                yield from _top_level([*body, *(inner for each in handlers for inner in each.body), *other, *final])
            case _:
                pass


def _of_statement(statement: ast.stmt) -> set[str]:
    names: set[str] = set()
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {"apply"} if name == "apply" else set()
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            names = {alias.asname or alias.name for alias in aliases}
        case ast.Assign(targets=targets):
            names = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            names = {name}
        case _:
            pass
    offers = {"apply"} if "apply" in names else set()
    if isinstance(statement, ast.Expr | ast.Assign) and any(map(_makes_kit, ast.walk(statement))):
        offers.add("kit")
    return offers


def _makes_kit(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in _KIT_NAMES
        case _:
            return False


def _missing(tree: SourceTree, name: str, configured: str | None) -> str:
    script = f"src/{name}.py"
    if not tree.is_directory("src"):
        cause = f"there is no directory src (at the top there is: {_shown(tree.names_in(''))})"
    elif tree.exists(script):
        cause = "it is not a regular file"
    else:
        cause = f"in src there is: {_shown(tree.names_in('src'))}, and no module with a function apply"
    also = f" (nor src/{configured}.py, which {CONFIGURATION} names)" if configured not in (None, name) else ""
    return f"the source has no {script}{also}: {cause}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMES_SHOWN]) or "nothing"
