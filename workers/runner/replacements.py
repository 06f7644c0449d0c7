"""What each module of the standard library, and numpy, has lost since Python 3.8, by module. See `compat.py`.

Each change adds only names that are missing. Names that cannot be added soundly are left out: methods of classes
written in C (`array.tostring`, `Element.getchildren`), keywords that changed meaning, modules without a successor.
"""

from __future__ import annotations

import collections
import collections.abc
import sys
import time
from types import ModuleType
from typing import Any, Callable, Dict, NamedTuple  # noqa: UP035 - Python 3.8 cannot subscript dict at run time

Change = Callable[[ModuleType], None]


def _add(target: Any, **names: Any) -> None:
    for name, value in names.items():
        if not hasattr(target, name):
            setattr(target, name, value)


class ArgSpec(NamedTuple):
    """What `inspect.getargspec` returned."""

    args: Any
    varargs: Any
    keywords: Any
    defaults: Any


def _inspect(module: Any) -> None:
    def getargspec(function: Any) -> ArgSpec:
        """Return names and defaults of a function's parameters (Python 3.10, `inspect.getargspec`)."""
        found = module.getfullargspec(function)
        if found.kwonlyargs or found.annotations:
            raise ValueError("Function has keyword-only parameters or annotations, use inspect.signature() API")
        return ArgSpec(found.args, found.varargs, found.varkw, found.defaults)

    def formatargspec(
        args: Any, varargs: Any = None, varkw: Any = None, defaults: Any = None, *more: Any, **options: Any
    ) -> str:
        """Return the parameters as text in parentheses (Python 3.10, `inspect.formatargspec`)."""
        names = ("kwonlyargs", "kwonlydefaults", "annotations")
        given = {**dict(zip(names, more)), **options}  # noqa: B905 - Python 3.8 has no `strict`
        notes = given.get("annotations") or {}
        format_value = given.get("formatvalue", lambda value: "=" + repr(value))

        def noted(name: str) -> str:
            return name + (": " + module.formatannotation(notes[name]) if name in notes else "")

        first_default = len(args) - len(defaults or ())
        parts = [
            noted(name) + (format_value(defaults[index - first_default]) if index >= first_default else "")
            for index, name in enumerate(args)
        ]
        if varargs is not None:
            parts.append("*" + noted(varargs))
        elif given.get("kwonlyargs"):
            parts.append("*")
        for name in given.get("kwonlyargs") or ():
            values = given.get("kwonlydefaults") or {}
            parts.append(noted(name) + (format_value(values[name]) if name in values else ""))
        if varkw is not None:
            parts.append("**" + noted(varkw))
        result = "(" + ", ".join(parts) + ")"
        return result + (" -> " + module.formatannotation(notes["return"]) if "return" in notes else "")

    _add(module, ArgSpec=ArgSpec, getargspec=getargspec, formatargspec=formatargspec)


def _fractions(module: Any) -> None:
    import math  # noqa: PLC0415 - loaded with fractions

    def gcd(a: Any, b: Any) -> Any:
        """Return the greatest common divisor, with the sign of `b` (Python 3.8, `fractions.gcd`)."""
        divisor = math.gcd(a, b)
        return -divisor if b < 0 else divisor

    _add(module, gcd=gcd)


def _asyncio(module: Any) -> None:
    import inspect  # noqa: PLC0415 - loaded with asyncio
    import types  # noqa: PLC0415 - as above

    def coroutine(function: Any) -> Any:
        """Mark a generator function as a coroutine (Python 3.10, `asyncio.coroutine`)."""
        if inspect.iscoroutinefunction(function):
            return function
        if inspect.isgeneratorfunction(function):
            return types.coroutine(function)

        def generator(*arguments: Any, **keywords: Any) -> Any:
            result = function(*arguments, **keywords)
            if inspect.isawaitable(result) or inspect.isgenerator(result):
                result = yield from (result if inspect.isgenerator(result) else result.__await__())
            return result

        return types.coroutine(generator)

    _add(module, coroutine=coroutine)
    if sys.version_info >= (3, 14):
        module.get_event_loop = loop_getter(module, module.get_event_loop)


def loop_getter(module: Any, get_event_loop: Callable[[], Any]) -> Callable[[], Any]:
    """Return a `get_event_loop` that makes a loop in the main thread if there is none, as it did up to Python 3.13."""
    import threading  # noqa: PLC0415 - loaded with asyncio

    def get_or_make() -> Any:
        try:
            return get_event_loop()
        except RuntimeError:
            if threading.current_thread() is not threading.main_thread():
                raise
            loop = module.new_event_loop()
            module.set_event_loop(loop)
            return loop

    return get_or_make


def _html_parser(module: Any) -> None:
    import html  # noqa: PLC0415 - loaded with html.parser

    _add(module.HTMLParser, unescape=lambda _self, text: html.unescape(text))


def _json_decoder(module: Any) -> None:
    """Have `json.loads(text, encoding=…)` ignore the keyword, as Python 3.8 did."""
    if sys.version_info < (3, 9):
        return
    initialize = module.JSONDecoder.__init__

    def __init__(self: Any, *arguments: Any, encoding: object = None, **keywords: Any) -> None:  # noqa: ARG001, N807
        initialize(self, *arguments, **keywords)

    module.JSONDecoder.__init__ = __init__


def _random(module: Any) -> None:
    """Have `random.sample` take a set, as Python 3.10 did; the order is the set's, so it is not reproducible."""
    if sys.version_info < (3, 11):
        return
    sample = module.Random.sample

    def sample_any(self: Any, population: Any, k: Any, **keywords: Any) -> Any:
        is_set = isinstance(population, collections.abc.Set) and not isinstance(population, collections.abc.Sequence)
        return sample(self, tuple(population) if is_set else population, k, **keywords)

    module.Random.sample = sample_any
    module.sample = module._inst.sample  # noqa: SLF001 - the instance whose methods the module offers


def _typing(module: Any) -> None:
    for name, members in (("io", ("IO", "TextIO", "BinaryIO")), ("re", ("Pattern", "Match"))):
        full_name = "typing." + name
        if not hasattr(module, name) and full_name not in sys.modules:
            part = ModuleType(full_name)
            for member in members:
                setattr(part, member, getattr(module, member))
            sys.modules[full_name] = part
            setattr(module, name, part)


def _pkgutil(module: Any) -> None:
    """Add what older versions of pkg_resources register by name; nothing makes instances of these classes."""
    _add(module, ImpImporter=type("ImpImporter", (), {}), ImpLoader=type("ImpLoader", (), {}), find_loader=find_loader)


def find_loader(name: str, _path: Any = None) -> Any:
    """Return a module's loader, or None (Python 3.11, `importlib.find_loader`)."""
    import importlib.util  # noqa: PLC0415 - loaded by every caller

    spec = importlib.util.find_spec(name)
    return spec and spec.loader


def _numpy(module: Any) -> None:
    """Add the names of Python's own types that numpy 1.24 dropped."""
    for kind in (bool, int, float, complex, object, str):
        if kind.__name__ not in vars(module):
            setattr(module, kind.__name__, kind)


def _configparser(module: Any) -> None:
    _add(module, SafeConfigParser=module.ConfigParser)
    _add(module.RawConfigParser, readfp=lambda self, file, filename=None: self.read_file(file, filename))


def _locale(module: Any) -> None:
    def format_number(percent: str, value: Any, grouping: bool = False, monetary: bool = False, *more: Any) -> str:
        """Format one number (Python 3.11, `locale.format`)."""
        return str(module.format_string(percent, (value, *more) if more else value, grouping, monetary))

    _add(module, format=format_number)


def _cgi(module: Any) -> None:
    import html  # noqa: PLC0415 - loaded by cgi
    import urllib.parse  # noqa: PLC0415 - loaded by cgi

    _add(
        module,
        escape=lambda text, quote=None: html.escape(text, quote=bool(quote)),
        parse_qs=urllib.parse.parse_qs,
        parse_qsl=urllib.parse.parse_qsl,
    )


def _collections(module: Any) -> None:
    _add(module, **{name: getattr(collections.abc, name) for name in collections.abc.__all__})


def _os(module: Any) -> None:
    import errno  # noqa: PLC0415 - built in

    _add(module, errno=errno)


def _time(module: Any) -> None:
    _add(module, clock=time.process_time)


def _base64(module: Any) -> None:
    _add(module, encodestring=module.encodebytes, decodestring=module.decodebytes)


def _threading(module: Any) -> None:
    _add(module.Thread, isAlive=module.Thread.is_alive)


def _importlib(module: Any) -> None:
    _add(module, find_loader=find_loader)


CHANGES: Dict[str, Change] = {  # noqa: UP006 - as above
    "asyncio": _asyncio,
    "base64": _base64,
    "cgi": _cgi,
    "collections": _collections,
    "configparser": _configparser,
    "fractions": _fractions,
    "html.parser": _html_parser,
    "importlib": _importlib,
    "inspect": _inspect,
    "json.decoder": _json_decoder,
    "locale": _locale,
    "numpy": _numpy,
    "os": _os,
    "pkgutil": _pkgutil,
    "random": _random,
    "threading": _threading,
    "time": _time,
    "typing": _typing,
}
"""What is done to a module after its import."""
