"""Make the virtual environment `argv[1]`, put pip into the directory `argv[2]`, and print pip's version.

pip comes unpacked out of the wheel that Python brings for `ensurepip`, beside the environment and not into it: it is
nothing that an algorithm needs, and installing it takes longer than installing many an algorithm's requirements.
setuptools, which Python up to 3.11 gives every virtual environment, stays a part of it: old packages import it unasked.
"""

from __future__ import annotations

import ensurepip
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

_KEPT_ELSEWHERE = sysconfig.get_config_var("WHEEL_PKG_DIR")  # as distributions may (configure --with-wheel-pkg-dir)
_PLACES = [Path(place) for place in (_KEPT_ELSEWHERE, Path(ensurepip.__file__).with_name("_bundled")) if place]


def bundled(project: str) -> list[Path]:
    """The wheels of a project that Python brings."""
    return [wheel for place in _PLACES for wheel in sorted(place.glob(f"{project}-*.whl"))]


def unpack(wheel: Path, target: Path) -> None:
    """A wheel of pure Python is installed when it is unpacked (PEP 427)."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)


environment, pip = map(Path, sys.argv[1:])
venv.create(environment, symlinks=True)
site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
for wheel in bundled("setuptools")[:1]:
    unpack(wheel, site)
found = bundled("pip")
if not found:
    sys.exit("this Python has no wheel of pip for ensurepip")
unpack(found[0], pip)
print(found[0].name.split("-")[1])
