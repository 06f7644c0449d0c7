"""Say in one sentence what to do about a source of another time or of fuller images, which is not imported."""

from __future__ import annotations

import os
import re
from functools import lru_cache

_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([^']+)'")
_PYTHON_2_SYNTAX = re.compile(
    r"^(?:SyntaxError: (?:Missing parentheses in call to '(?:print|exec)'|multiple exception types must be|"
    r"leading zeros in decimal integer literals)|TabError: inconsistent use of tabs)"
)
_PYTHON_2_NAME = re.compile(r"^NameError: name '(?:unicode|xrange|raw_input|basestring|unichr|reload|execfile)' is not")
_PYTHON_2_MODULES = (
    *("__builtin__", "ConfigParser", "cookielib", "cPickle", "cStringIO", "HTMLParser", "httplib", "Queue", "StringIO"),
    *("Tkinter", "thread", "urllib2", "urlparse", "xmlrpclib"),
)
_REMOVED_MODULES = {
    **dict.fromkeys(("asynchat", "asyncore", "imp", "distutils", "smtpd"), "3.12"),
    **dict.fromkeys(("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap"), "3.13"),
    **dict.fromkeys(("nntplib", "pipes", "sndhdr", "sunau", "telnetlib", "uu", "xdrlib"), "3.13"),
}
"""Modules of the standard library, with the version of Python that dropped them."""

_PYTHON_2 = (
    "The source is written for Python 2, which no environment has: convert it to Python 3, for example with futurize."
)
_REMOVED = (
    "Python {version} dropped this module: choose an environment with an older Python (settings.algorithm_environment, "
    "such as python38), or add the package that replaces it to requirements.txt."
)
_IN_SOURCE = "The source has it as {path}: import {name}."
_MISSING = (
    "Add the package that has it to requirements.txt: an environment has the standard library, the platform's client "
    "and what requirements.txt names."
)


@lru_cache(maxsize=1)
def import_hint(error: str, root: str) -> str:
    """Return what to do about the last line of a traceback, or an empty text. `root` is the source's directory."""
    if _PYTHON_2_SYNTAX.match(error) or _PYTHON_2_NAME.match(error):
        return _PYTHON_2
    missing = _MODULE.match(error)
    if missing is None:
        return ""
    name = missing.group(1).split(".")[0]
    path = _path_in_source(root, name)
    if path is not None:
        module = (path[:-3] if path.endswith(".py") else path).replace("/", ".")
        return _IN_SOURCE.format(path=path, name=module)
    if name in _PYTHON_2_MODULES:
        return _PYTHON_2
    if name in _REMOVED_MODULES:
        return _REMOVED.format(version=_REMOVED_MODULES[name])
    return "" if name in ("src", "Algorithmia", "adk") else _MISSING


def _path_in_source(root: str, name: str) -> str | None:
    """Return where a module of this name is, at most three directories below `src`, relative to the root."""
    start = os.path.join(root, "src")
    for directory, directories, files in os.walk(start):
        relative = os.path.relpath(directory, root).replace(os.sep, "/")
        for found in (name + ".py" if name + ".py" in files else "", name if name in directories else ""):
            if found:
                return relative + "/" + found
        if relative.count("/") >= 3:
            directories[:] = []
    return None
