"""The Python interpreters of this machine, for tests of what runs in images: CI has only Debian's own."""

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

VERSIONS = tuple(f"3.{minor}" for minor in range(8, 15))


@lru_cache(maxsize=1)
def interpreters() -> dict[str, Path]:
    """Return the interpreters by version: this one, those on the path, and those of pyenv."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": Path(sys.executable)}
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
    for program in (*map(str, pyenv), *(f"python{version}" for version in VERSIONS)):
        try:
            run = subprocess.run(
                [program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            continue
        if run.returncode == 0 and run.stdout.strip() in VERSIONS:
            found.setdefault(run.stdout.strip(), Path(program))
    return found
