"""The source of a new algorithm: the first commit of a hosted repository, and the template of an environment.

Equal arguments and settings give equal bytes, so that an algorithm's first commit always has the same hash.
"""

import io
import json
import keyword
import tarfile
import zlib
from collections.abc import Mapping
from gzip import GzipFile

from shared.settings import settings

DEFAULT_NAME = "Algorithm"
"""The name of the entry where the template is for no algorithm in particular; the runner finds `src/Algorithm.py`."""
FILE_MODE = 0o644
MODIFIED_AT = 1_600_000_000
"""The fixed time of the files in an archive."""

_ENTRY = """\
from Algorithmia import ADK


# Each call runs apply. Its input is a str (text), bytes (binary data), or what the JSON of the request says.
# What it returns becomes the response: a str, bytes, or anything that JSON can express.
def apply(input):
    return "hello {}".format(input)


# What must happen once, before the first call, belongs into a function load(). With ADK(apply, load), apply gets what
# load returned as its second argument.
algorithm = ADK(apply)

# In the platform, init waits for calls. On your own machine it calls apply once with this input and prints the result.
algorithm.init("Algorithmia")
"""

_TEST = """\
{import_apply}


def test_hello():
    assert apply("Jane") == "hello Jane"
"""

_REQUIREMENTS = """\
# One requirement per line. The development kit is added where no line brings it.
{kit}"""

_README = """\
# {name}

An algorithm for the environment `{environment}`.

| file | contents |
|---|---|
| `src/{name}.py` | the function `apply`, which runs for each call |
| `src/{name}_test.py` | its test: `python -m pytest src` |
| `requirements.txt` | the packages that it needs |
| `algorithmia.conf` | its owner, name and environment |

To try it on your own machine:

    python -m pip install -r requirements.txt
    python src/{name}.py

Commit and push a change to compile it.
"""


def template_files(name: str, owner: str, environment: str) -> Mapping[str, bytes]:
    """Return the files of a new algorithm by their path. It compiles, and answers `hello INPUT`."""
    module = f"src.{name}"
    import_apply = f"from {module} import apply"
    if keyword.iskeyword(name):  # no statement can import it by its name
        import_apply = f'from importlib import import_module\n\napply = import_module("{module}").apply'
    kit = settings().kit_requirement
    configuration = {"username": owner, "algoname": name, "language": environment}
    texts = {
        "README.md": _README.format(name=name, environment=environment),
        "algorithmia.conf": json.dumps(configuration, indent=4) + "\n",
        "requirements.txt": _REQUIREMENTS.format(kit=f"{kit}\n" if kit else ""),
        "src/__init__.py": "",
        f"src/{name}.py": _ENTRY,
        f"src/{name}_test.py": _TEST.format(import_apply=import_apply),
    }
    return {path: text.encode() for path, text in texts.items()}


def template_archive(files: Mapping[str, bytes]) -> bytes:
    """Return the files as a gzipped tar, which is the same for the same files."""
    packed = io.BytesIO()
    with (
        GzipFile(
            fileobj=packed, mode="wb", filename="", compresslevel=zlib.Z_BEST_COMPRESSION, mtime=MODIFIED_AT
        ) as gz,
        tarfile.open(fileobj=gz, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), FILE_MODE, MODIFIED_AT
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
