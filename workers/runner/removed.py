"""Stand-ins for modules that the standard library no longer has, on what took their place. See `compat.py`.

They have what algorithms and their libraries use of them: `imp` on importlib, `pipes.quote` on shlex, the functions of
`cgi` that are no CGI, `imghdr.what`, `xml.etree.cElementTree`, and `distutils` on the copy that setuptools has.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any


class Loader:
    """Makes a stand-in; see `importlib.abc.Loader`."""

    def create_module(self, spec: Any) -> ModuleType | None:
        """Return the module that took the place of another one, or None: a new one is filled."""
        if spec.name == "xml.etree.cElementTree":
            return importlib.import_module("xml.etree.ElementTree")
        if spec.name == "distutils":
            return importlib.import_module("setuptools._distutils")
        return None

    def exec_module(self, module: ModuleType) -> None:
        fill = FILLED.get(module.__name__)
        if fill is not None:
            fill(module)


def _imp(module: Any) -> None:
    machinery = importlib.machinery
    module.PY_SOURCE, module.PY_COMPILED, module.C_EXTENSION, module.PKG_DIRECTORY = 1, 2, 3, 5
    module.C_BUILTIN, module.PY_FROZEN = 6, 7
    module.reload = importlib.reload
    module.new_module = ModuleType
    module.cache_from_source = importlib.util.cache_from_source
    module.source_from_cache = importlib.util.source_from_cache
    module.get_magic = lambda: importlib.util.MAGIC_NUMBER
    module.get_tag = lambda: sys.implementation.cache_tag
    module.is_builtin = lambda name: int(name in sys.builtin_module_names)
    module.is_frozen = lambda name: machinery.FrozenImporter.find_spec(name) is not None
    module.acquire_lock = module.release_lock = lambda: None
    module.lock_held = lambda: False
    module.NullImporter = type("NullImporter", (), {"find_module": lambda *_arguments: None})

    def get_suffixes() -> list[tuple[str, str, int]]:
        return [
            *((suffix, "rb", 3) for suffix in machinery.EXTENSION_SUFFIXES),
            *((suffix, "r", 1) for suffix in machinery.SOURCE_SUFFIXES),
            *((suffix, "rb", 2) for suffix in machinery.BYTECODE_SUFFIXES),
        ]

    def load(name: str, path: str, loader: Any) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        if spec is None or spec.loader is None:
            raise ImportError("Cannot load " + path, name=name)
        loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return sys.modules[name]

    def load_source(name: str, pathname: str, _file: Any = None) -> ModuleType:
        return load(name, pathname, machinery.SourceFileLoader(name, pathname))

    def load_compiled(name: str, pathname: str, _file: Any = None) -> ModuleType:
        return load(name, pathname, machinery.SourcelessFileLoader(name, pathname))

    def load_dynamic(name: str, path: str, _file: Any = None) -> ModuleType:
        return load(name, path, machinery.ExtensionFileLoader(name, path))

    def find_module(name: str, path: Any = None) -> tuple[Any, Any, tuple[str, str, int]]:
        """Return an open file, its path and its kind (Python 3.11, `imp.find_module`)."""
        if path is None and name in sys.builtin_module_names:
            return None, None, ("", "", 6)
        spec = machinery.PathFinder.find_spec(name, path)
        if spec is None or (spec.origin is None and not spec.submodule_search_locations):
            raise ImportError("No module named " + repr(name), name=name)
        if spec.submodule_search_locations:
            return None, next(iter(spec.submodule_search_locations)), ("", "", 5)
        origin = str(spec.origin)
        suffix, mode, kind = next(known for known in get_suffixes() if origin.endswith(known[0]))
        return open(origin, mode), origin, (suffix, mode, kind)

    def load_module(name: str, file: Any, filename: str, details: tuple[str, str, int]) -> ModuleType:
        if details[2] == 5:
            path = filename + "/__init__.py"
            return load(name, path, machinery.SourceFileLoader(name, path))
        loaders = {1: load_source, 2: load_compiled, 3: load_dynamic}
        if details[2] in loaders:
            return loaders[details[2]](name, filename, file)
        return importlib.import_module(name)

    module.get_suffixes, module.find_module, module.load_module = get_suffixes, find_module, load_module
    module.load_source, module.load_compiled, module.load_dynamic = load_source, load_compiled, load_dynamic


def _pipes(module: Any) -> None:
    from shlex import quote  # noqa: PLC0415 - only where it is used

    module.quote = quote


def _cgi(module: Any) -> None:
    from email.message import Message  # noqa: PLC0415 - only where it is used

    def parse_header(line: str) -> tuple[str, dict[str, str]]:
        """Return the value of a header and its parameters (Python 3.12, `cgi.parse_header`)."""
        header = Message()
        header["content-type"] = line
        value, *parameters = header.get_params() or [("", "")]
        return value[0], dict(parameters)

    module.parse_header = parse_header


def _imghdr(module: Any) -> None:
    kinds = {
        "jpeg": (0, (b"\xff\xd8\xff",)),
        "png": (0, (b"\x89PNG\r\n\x1a\n",)),
        "gif": (0, (b"GIF87a", b"GIF89a")),
        "tiff": (0, (b"MM", b"II")),
        "bmp": (0, (b"BM",)),
        "webp": (8, (b"WEBP",)),
        "pbm": (0, (b"P1", b"P4")),
        "pgm": (0, (b"P2", b"P5")),
        "ppm": (0, (b"P3", b"P6")),
    }

    def what(file: Any, h: Any = None) -> str | None:
        """Return the kind of an image by its first bytes, or None (Python 3.12, `imghdr.what`)."""
        if h is None and hasattr(file, "read"):
            position = file.tell()
            h = file.read(32)
            file.seek(position)
        elif h is None:
            with open(file, "rb") as opened:
                h = opened.read(32)
        return next((kind for kind, (start, magic) in kinds.items() if h[start:].startswith(magic)), None)

    module.what = what
    module.tests = []


FILLED = {"imp": _imp, "pipes": _pipes, "cgi": _cgi, "imghdr": _imghdr}
