"""What Python has dropped since 3.8 is there for algorithms, in each interpreter of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpreters import VERSIONS, interpreters
from workers.runner.settings import STARTUP

USES = r"""
import ast, asyncio, base64, cgi, collections, configparser, decimal, fractions, html.parser, imghdr, imp, importlib
import inspect, json, locale, os, pipes, pkgutil, random, sys, threading, time, xml.etree.cElementTree as ET
from collections import Callable, Mapping, OrderedDict
from typing.io import BinaryIO
from typing.re import Pattern

def example(a, b=2, *rest, **more):
    pass

assert inspect.getargspec(example) == (["a", "b"], "rest", "more", (2,))
assert inspect.getargspec(example).keywords == "more"
assert inspect.formatargspec(*inspect.getargspec(example)) == "(a, b=2, *rest, **more)"
assert inspect.formatargspec(*inspect.getfullargspec(lambda *, c=1: 0)) == "(*, c=1)"
assert issubclass(dict, Mapping) and issubclass(OrderedDict, collections.MutableMapping) and callable(Callable)
assert fractions.gcd(12, 18) == 6 and fractions.gcd(12, -18) == -6
assert isinstance(time.clock(), float)
assert base64.decodestring(base64.encodestring(b"bytes")) == b"bytes"
assert not threading.Thread().isAlive()
assert html.parser.HTMLParser().unescape("&lt;") == "<"
assert json.loads('{"a": 1}', encoding="utf-8") == {"a": 1} and json.loads("[1]") == [1]
assert sorted(random.sample({1, 2, 3}, 3)) == [1, 2, 3] and random.Random(1).sample({7}, 1) == [7]
assert len(random.sample(range(5), 2)) == 2
assert configparser.SafeConfigParser().sections() == [] and hasattr(configparser.RawConfigParser, "readfp")
assert locale.format("%d", 12345) == "12345"
assert pkgutil.ImpImporter and importlib.find_loader("json") and importlib.find_loader("nothing_like_it") is None
assert os.errno.ENOENT == 2
assert cgi.escape("<a>") == "&lt;a&gt;" and cgi.parse_header("text/html; charset=utf-8")[1] == {"charset": "utf-8"}
assert pipes.quote("a b") == "'a b'"
assert imghdr.what(None, b"\x89PNG\r\n\x1a\n") == "png" and imghdr.what(None, b"text") is None
assert ET.fromstring("<a><b/></a>").find("b") is not None

@asyncio.coroutine
def old_style(value):
    yield from asyncio.sleep(0)
    return value

assert asyncio.get_event_loop().run_until_complete(old_style(3)) == 3

with open("beside.py", "w") as file:
    file.write("value = 4")
assert imp.load_source("loaded", "beside.py").value == 4 and sys.modules["loaded"].value == 4
assert imp.find_module("beside", ["."])[2][2] == imp.PY_SOURCE
assert imp.load_module("again", *imp.find_module("beside", ["."])).value == 4
imp.reload(sys.modules["again"] if sys.version_info < (3, 0) else json)
assert imp.new_module("made").__name__ == "made"
print("all there")
"""
"""What sources of 2018 to 2022 use. Each statement works in Python 3.7, and is missing in one of the later ones."""


def run(python: Path, text: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-W", "ignore", "-c", text],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": STARTUP, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_what_sources_use_is_there(version: str, tmp_path: Path) -> None:
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    ran = run(python, USES, tmp_path)
    assert ran.stdout == "all there\n", ran.stderr


def test_interpreters_that_it_starts_have_it_too(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import inspect; print(inspect.getargspec(lambda a: a).args)'])"
    )
    assert run(Path(sys.executable), text, tmp_path).stdout == "['a']\n"


def test_an_installed_module_comes_before_the_stand_in(tmp_path: Path) -> None:
    python = interpreters().get("3.13")
    if python is None:
        pytest.skip("no Python 3.13 on this machine, which has no module cgi")
    (tmp_path / "cgi.py").write_text("mark = 'installed'")
    assert (
        run(python, "import cgi\nprint(cgi.mark)", tmp_path, PYTHONPATH=f"{STARTUP}:{tmp_path}").stdout == "installed\n"
    )


def test_an_images_own_start_up_runs_too_and_numpy_keeps_its_names(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import inspect\ninspect.mark = hasattr(inspect, 'getargspec')")
    (tmp_path / "numpy.py").write_text("bool = 'of numpy'\nint_ = 1")
    text = (
        "import inspect, sitecustomize, sys, numpy\n"
        "print(inspect.mark, sitecustomize.__file__, numpy.bool, numpy.float, numpy.int_)\n"
        "print(any('startup' in entry for entry in sys.path))"
    )
    seen = run(Path(sys.executable), text, tmp_path, PYTHONPATH=f"{STARTUP}:{tmp_path}").stdout
    assert seen == f"True {tmp_path / 'sitecustomize.py'} of numpy <class 'float'> 1\nFalse\n"


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    text = (
        "import sys, time\nbefore = set(sys.modules)\nimport inspect, json, random, html.parser\n"
        "print(inspect.getsource(json.loads)[:9], inspect.getsourcefile(random)[-9:], json.JSONDecoder().decode('1'))\n"
        "try:\n    json.loads('1', colour='red')\nexcept TypeError as error:\n    print('colour' in str(error))\n"
        "try:\n    import telnetlib_of_nobody\nexcept ImportError as error:\n    print(error.name)"
    )
    seen = run(Path(sys.executable), text, tmp_path).stdout
    assert seen == "def loads random.py 1\nTrue\ntelnetlib_of_nobody\n"


def test_the_main_thread_gets_an_event_loop_where_none_is_made_any_more() -> None:
    import asyncio

    from workers.runner.replacements import loop_getter

    asyncio.set_event_loop(None)
    getter = loop_getter(asyncio, asyncio.get_event_loop)
    loop = getter()
    try:
        assert getter() is loop
    finally:
        loop.close()
        asyncio.set_event_loop(None)
