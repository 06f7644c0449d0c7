"""Source trees of hostile owners: what their algorithms do when they load or run, and what their builds do.

A tree is a mapping of paths to texts, as `Repository.write` of `tests/acceptance/system.py` takes it; `encoded` makes
the bytes that `archive_of` and `request_for` of the builds' tests take.
"""

from collections.abc import Mapping
from textwrap import dedent, indent

from tests.unit.workers.runner.running import PROTOCOL

Tree = dict[str, str]

_ALGORITHM = """\
{protocol}
{at_import}

def apply(given):
{body}

serve(lambda request: apply(request["data"]))
"""
_PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
_BACKEND = """\
import zipfile


def run():
{code}


def build_wheel(directory, config_settings=None, metadata_directory=None):
    run()
    name, info = "local_part-1.0-py3-none-any.whl", "local_part-1.0.dist-info"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: local_part\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""


def algorithm(
    body: str = "return given", *, at_import: str = "", requirements: str = "", name: str = "Hostile"
) -> Tree:
    """An algorithm whose `apply(given)` has this body, after statements that run when it is imported."""
    source = _ALGORITHM.format(protocol=PROTOCOL, at_import=dedent(at_import), body=indent(dedent(body), "    "))
    return {f"src/{name}.py": source, "requirements.txt": requirements}


def runs_in_build(code: str, *, name: str = "Hostile") -> Tree:
    """An algorithm with a part of its source that must be built: this code runs then. It needs no package index."""
    tree = algorithm(requirements="./part\n", name=name)
    backend = _BACKEND.format(code=indent(dedent(code), "    "))
    return {**tree, "part/pyproject.toml": _PYPROJECT, "part/backend.py": backend}


def runs_as_backend(code: str, *, name: str = "Hostile") -> Tree:
    """The same for images without setuptools: the part brings a build backend (PEP 517), which runs the code."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    tree = algorithm(requirements="./part\n", name=name)
    return {**tree, "part/pyproject.toml": project, "part/backend.py": dedent(code)}


def tells_environment() -> str:
    """Code that prints all environment variables, and backwards as well, which no masking of secrets finds."""
    return "import os\nfor pair in os.environ.items():\n    print(pair, ''.join(pair)[::-1], flush=True)\n"


def fills_disk(path: str, *, megabytes: int | None = None) -> str:
    """Code that writes to a file until the disk is full, or so many megabytes are written."""
    rounds = "iter(int, 1)" if megabytes is None else f"range({megabytes})"
    return f"with open({path!r}, 'ab') as target:\n    for _ in {rounds}:\n        target.write(bytes(1 << 20))\n"


def makes_files(directory: str, count: int) -> str:
    """Code that makes so many empty files."""
    return f"for number in range({count}):\n    open({directory!r} + f'/{{number}}', 'w').close()\n"


def forks(count: int) -> str:
    """Code that starts up to so many processes, which continue when it has ended."""
    return (
        "import os, time\n"
        f"for _ in range({count}):\n"
        "    try:\n        child = os.fork()\n    except OSError:\n        break\n"
        "    if child == 0:\n        time.sleep(3600)\n        os._exit(0)\n"
    )


def floods_output(megabytes: int) -> str:
    """Code that prints so many megabytes."""
    return f"for _ in range({megabytes}):\n    print('x' * ((1 << 20) - 1))\n"


def probes(addresses: list[tuple[str, int]], *, seconds: float = 2.0) -> str:
    """Code that sets `reached` to the addresses, as HOST:PORT, to which a connection can be made."""
    return (
        "import socket\nreached = []\n"
        f"for address in {addresses!r}:\n"
        f"    try:\n        socket.create_connection(address, {seconds}).close()\n"
        "    except OSError:\n        continue\n"
        "    reached.append('%s:%s' % address)\n"
    )


def encoded(tree: Mapping[str, str]) -> dict[str, bytes]:
    """Return a tree with bytes in place of texts."""
    return {path: text.encode() for path, text in tree.items()}
