"""The start-up of the algorithm's process: the fixed `traceback`, and what can be imported."""

import ast
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.runner.running import FILES
from workers.runner.boot import accept_etype


def caught() -> KeyError:
    try:
        raise KeyError("missing")
    except KeyError as error:
        return error


@pytest.mark.parametrize(
    "form",
    [
        lambda call, error: call(etype=type(error), value=error, tb=error.__traceback__),
        lambda call, error: call(etype=type(error), value=error, tb=error.__traceback__, limit=5, chain=False),
        lambda call, error: call(type(error), error, error.__traceback__),
        lambda call, error: call(error),
        lambda call, error: call(error, chain=False),
        lambda call, error: call(type(error), value=error, tb=error.__traceback__),
    ],
)
def test_every_form_of_the_call_gives_the_same(form: Callable[[Any, Any], Any]) -> None:
    error = caught()
    assert form(accept_etype(traceback.format_exception), error) == traceback.format_exception(error)


def test_a_call_that_is_wrong_stays_wrong() -> None:
    with pytest.raises(TypeError, match="colour"):
        accept_etype(traceback.format_exception)(caught(), colour="red")


def booted(source: Path, text: str, **environment: str) -> Any:
    """Import `src/Hello.py` by boot.py, without a request; gives the JSON that it prints."""
    script = source / "src" / "Hello.py"
    script.write_text(f"import json, os, sys\n{text}\ndef apply(input):\n    return input\n")
    run = subprocess.run(
        [sys.executable, FILES / "boot.py", script],
        cwd=source,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_module_is_the_packages_own_and_not_main(source: Path) -> None:
    seen = booted(
        source,
        "import __main__\n"
        "own = sys.modules[__name__]\n"
        "print(json.dumps([__name__, __package__, __file__, sys.argv, os.getcwd(), __main__ is own]))\n"
        "if __name__ == '__main__':\n    print('this block does not run')",
    )
    script = str(source / "src" / "Hello.py")
    assert seen == ["src.Hello", "src", script, [script], str(source), False]


def test_every_way_to_import_ones_own_modules_works(source: Path) -> None:
    (source / "src" / "beside.py").write_text("value = 'beside'")
    (source / "src" / "inner").mkdir()
    (source / "src" / "inner" / "deep.py").write_text("value = 'deep'")
    (source / "atroot.py").write_text("value = 'root'")
    seen = booted(
        source,
        "from .beside import value as a\n"
        "from beside import value as b\n"
        "from src.beside import value as c\n"
        "from .inner.deep import value as d\n"
        "from atroot import value as e\n"
        "print(json.dumps([a, b, c, d, e]))",
    )
    assert seen == ["beside", "beside", "beside", "deep", "root"]


def test_a_package_source_works_as_well(source: Path) -> None:
    (source / "src" / "__init__.py").write_text("value = 'package'")
    assert booted(source, "from . import value\nprint(json.dumps(value))") == "package"


def test_a_helper_that_imports_the_algorithm_gets_the_running_one(source: Path) -> None:
    (source / "src" / "helper.py").write_text("from .Hello import setting\nseen = setting")
    assert booted(source, "setting = 'set'\nfrom .helper import seen\nprint(json.dumps(seen))") == "set"


def test_own_files_shadow_neither_the_standard_library_nor_installed_packages(source: Path, tmp_path: Path) -> None:
    for directory in (source, source / "src"):
        for name in ("json", "types", "traceback", "server", "process", "init", "installed"):
            (directory / f"{name}.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "installed.py").write_text("value = 2")
    (source / "src" / "mine.py").write_text("value = 1")
    text = "import types, traceback, installed\nfrom mine import value\nprint(json.dumps([value, installed.value]))"
    assert booted(source, text, PYTHONPATH=str(tmp_path / "packages")) == [1, 2]


def test_an_algorithm_may_be_named_like_the_library_that_it_uses(source: Path, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "Hello.py").write_text("value = 'of the library'")
    seen = booted(source, "from Hello import value\nprint(json.dumps(value))", PYTHONPATH=str(tmp_path / "packages"))
    assert seen == "of the library"


def test_an_installed_package_called_src_is_not_taken_for_the_source(source: Path, tmp_path: Path) -> None:
    (tmp_path / "installed" / "src").mkdir(parents=True)
    (tmp_path / "installed" / "src" / "__init__.py").write_text("raise RuntimeError('not this one')")
    (source / "src" / "beside.py").write_text("value = 1")
    text = "from .beside import value\nprint(json.dumps(value))"
    assert booted(source, text, PYTHONPATH=str(tmp_path / "installed")) == 1


def test_the_runners_own_modules_are_not_on_the_path(source: Path) -> None:
    text = (
        "import importlib.util\nprint(json.dumps([importlib.util.find_spec(n) is None for n in ('boot', 'responses')]))"
    )
    assert booted(source, text) == [True, True]


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing_finds_the_algorithm_again(source: Path, tmp_path: Path, method: str) -> None:
    """Functions and classes of the module itself are pickled by the name under which the child imports them."""
    (tmp_path / "installed" / "src").mkdir(parents=True)
    (tmp_path / "installed" / "src" / "__init__.py").write_text("raise RuntimeError('not this one')")
    (source / "src" / "beside.py").write_text("def double(number):\n    return 2 * number")
    text = f"""
import multiprocessing
from .beside import double

class Pair:
    def __init__(self, number):
        self.number = number

def work(pair):
    return Pair(double(pair.number))

if multiprocessing.parent_process() is None:
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print(json.dumps([pair.number for pair in pool.map(work, [Pair(1), Pair(2)])]))
"""
    assert booted(source, text, PYTHONPATH=str(tmp_path / "installed")) == [2, 4]


@pytest.mark.parametrize("path", sorted(FILES.rglob("*.py")), ids=lambda path: str(path.relative_to(FILES)))
def test_the_files_are_python_3_8_and_need_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    assert imported <= sys.stdlib_module_names | {"adk", "Algorithmia"}  # these two where the algorithm has them
    assert not {part.stem for part in FILES.glob("*.py")} & sys.stdlib_module_names - {"__main__"}
