"""Serve the functions `apply` and `load` as the development kit does; and the kit's classes where a client lacks them.

Runs in the algorithm's process. The protocol is that of `algorithmia-adk` 1.2.4: a request is a line of JSON on
standard input, the response a line of JSON through a named pipe. Imports nothing else of the runner.
"""

from __future__ import annotations

import base64
import contextlib
import inspect
import json
import os
import sys
import traceback
from typing import Any, Callable, Iterable  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

PIPE_PATH = "/tmp/algoout"  # noqa: S108 - the path that the kit uses
MANIFEST = "model_manifest.json"
MANIFESTS = (MANIFEST + ".freeze", MANIFEST)

Function = Callable[..., Any]


class ADK:
    """Takes the place of the kit's class: `ADK(apply, load).init()` and `handler(apply, load).serve()`."""

    requests: Iterable[str] = ()
    """The lines of requests; the process sets its standard input."""

    def __init__(self, apply_func: Function, load_func: Function | None = None, client: Any = None) -> None:
        """Keep the functions. `client` reads the files of a model manifest.

        Raises:
            TypeError: `apply_func` cannot be called.
        """
        if not callable(apply_func):
            raise TypeError(f"apply must be a function, not {type(apply_func).__name__}")
        self.apply_func = apply_func
        self.load_func = load_func
        self.client = client
        self._state: Any = None
        self._load_error: Exception | None = None

    def init(self, *_arguments: object, **_keywords: object) -> None:
        """Load, then answer requests until there are none; the arguments are the kit's for local tests."""
        try:
            self._state = None if self.load_func is None else self._load(self.load_func)
        except Exception as error:  # noqa: BLE001 - whatever the algorithm raises is every call's error
            self._load_error = error
        for line in type(self).requests:
            _write(self._respond(line))

    serve = init

    def _load(self, load: Function) -> Any:
        if not takes_manifest(load):
            return load()
        from adk.modeldata import ModelData  # noqa: PLC0415 - few images have it

        if self.client is None:
            import Algorithmia  # noqa: PLC0415 - as above

            self.client = Algorithmia.client()
        data = ModelData(self.client, MANIFEST)
        if data.available():
            data.initialize()
        return load(data)

    def _respond(self, line: str) -> str:
        if self._load_error is not None:
            return _error(self._load_error, "LoadingError")
        try:
            return _result(self._apply(_input(json.loads(line))))
        except Exception as error:  # noqa: BLE001 - whatever the algorithm raises is the call's error
            return _error(error, "AlgorithmError")

    def _apply(self, data: Any) -> Any:
        """Call `apply` with the result of `load` if it takes two parameters, of which the second may have a default."""
        parameters = _positional(self.apply_func)
        takes_state = self.load_func is not None and len(parameters) == 2
        if takes_state and not (self._state is None and parameters[1].default is not inspect.Parameter.empty):
            return self.apply_func(data, self._state)
        return self.apply_func(data)


def handler(apply_func: Function, load_func: Function | None = None) -> ADK:
    """Return what the clients' older function of this name returns; its `serve` starts."""
    return ADK(apply_func, load_func)


def takes_manifest(load: Function) -> bool:
    """Return whether `load` is to get the model manifest, which it takes as its only parameter."""
    parameters = _positional(load)
    return len(parameters) == 1 and any(os.path.exists(path) for path in MANIFESTS)


def is_load(function: object, root: str) -> bool:
    """Return whether a module's `load` is the algorithm's own, not that of joblib or json, and needs no argument."""
    if not callable(function):
        return False
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    path = getattr(module, "__file__", None) or root
    if not os.path.abspath(path).startswith(root):
        return False
    required = [p for p in _positional(function) if p.default is inspect.Parameter.empty]
    return not required or (len(required) == 1 and takes_manifest(function))


def needs_state(apply: Function) -> bool:
    """Return whether `apply` cannot be called without the result of `load`, its second parameter."""
    parameters = _positional(apply)
    return len(parameters) == 2 and parameters[1].default is inspect.Parameter.empty


def _positional(function: Function) -> list[inspect.Parameter]:
    """Return the parameters that a call can pass by position; none for functions without a readable signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _input(request: Any) -> Any:
    if request["content_type"] in ("text", "json"):
        return request["data"]
    if request["content_type"] == "binary":
        return decoded(request["data"])
    raise ValueError(f"Invalid content_type: {request['content_type']}")


def decoded(data: str | bytes) -> bytes:
    """Return the bytes of a binary request; some kits have decoded them already."""
    return base64.b64decode(data) if isinstance(data, str) else bytes(data)


def _result(value: Any) -> str:
    content_type = "json"
    if isinstance(value, (bytes, bytearray)):
        content_type, value = "binary", base64.b64encode(value).decode("ascii")
    elif isinstance(value, str):
        content_type = "text"
    return json.dumps({"result": value, "metadata": {"content_type": content_type}})


def _error(error: Exception, error_type: str) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals is globals():
        frames = frames.tb_next
    stacktrace = "".join(traceback.format_exception(type(error), error, frames))
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception may fail to describe itself
        message = type(error).__name__
    error_type = str(getattr(error, "error_type", None) or error_type)
    return json.dumps({"error": {"message": message, "stacktrace": stacktrace, "error_type": error_type}})


def _write(response: str) -> None:
    """Write one response, after everything that the call printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the algorithm may have replaced or closed them
            stream.flush()
    with open(PIPE_PATH, "w", encoding="ascii") as pipe:
        pipe.write(response + "\n")
