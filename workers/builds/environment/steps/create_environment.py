"""Create the virtual environment `argv[1]`, unpack pip into the directory `argv[2]`, and print pip's version.

With `base-packages` in `argv[3]` the environment sees the packages of the base image's Python.

pip is unpacked from the wheel that Python has for `ensurepip`, outside of the environment: no algorithm needs it, and
installing it takes longer than installing the requirements of many algorithms. setuptools, which Python up to 3.11
installs in every virtual environment, is part of the environment: old packages import it without requiring it.

Debian before 12 has these wheels elsewhere, and in parts: pkg_resources, and all that pip otherwise contains.
"""

from __future__ import annotations

import ensurepip
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

_WHEEL_DIRECTORY = sysconfig.get_config_var("WHEEL_PKG_DIR")  # set by some distributions (--with-wheel-pkg-dir)
_DEBIAN_DIRECTORY = "/usr/share/python-wheels"
_DIRECTORIES = [
    Path(path) for path in (_WHEEL_DIRECTORY, Path(ensurepip.__file__).with_name("_bundled"), _DEBIAN_DIRECTORY) if path
]


def bundled_wheels(project: str) -> list[Path]:
    return [wheel for directory in _DIRECTORIES for wheel in sorted(directory.glob(f"{project}-*.whl"))]


def unpack(wheel: Path, target: Path, *, is_visible: bool = True) -> None:
    """Install a wheel of pure Python: unpacking it is enough (PEP 427). Without metadata, pip does not see it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(target, [name for name in names if is_visible or ".dist-info/" not in name])


environment, pip_directory = map(Path, sys.argv[1:3])
venv.create(environment, symlinks=True, system_site_packages=sys.argv[3:] == ["base-packages"])
site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
for wheel in bundled_wheels("setuptools")[:1] + bundled_wheels("pkg_resources")[:1]:
    unpack(wheel, site)
pip_wheels = bundled_wheels("pip")
if not pip_wheels:
    sys.exit("this Python has no wheel of pip for ensurepip")
unpack(pip_wheels[0], pip_directory)
if not (pip_directory / "pip" / "_vendor" / "requests").exists():
    for wheel in pip_wheels[0].parent.glob("*.whl"):
        # This directory comes before the environment when packages are built, and requirements may name a setuptools.
        if not wheel.name.startswith(("setuptools-", "pkg_resources-")):
            unpack(wheel, pip_directory, is_visible=False)
print(pip_wheels[0].name.split("-")[1])
