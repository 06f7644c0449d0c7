"""Wheels (PEP 427) that run code where they are installed, or whose metadata is false."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping

from tests.service.workers.builds.package_index import PackageIndex


def wheel(
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    record: str | None = None,
    metadata: str = "",
    tag: str = "py3-none-any",
) -> bytes:
    """Return a wheel with these files. `record` replaces its list of files, which is true otherwise."""
    info = f"{name}-{version}.dist-info"
    content = {
        **{path: text.encode() if isinstance(text, str) else text for path, text in files.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hostile\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    lines = [f"{path},{_record_hash(data)},{len(data)}\n" for path, data in content.items()]
    content[f"{info}/RECORD"] = ("".join([*lines, f"{info}/RECORD,,\n"]) if record is None else record).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for path, data in content.items():
            made.writestr(path, data)
    return archive.getvalue()


def file_name(name: str, version: str = "1.0", tag: str = "py3-none-any") -> str:
    return f"{name}-{version}-{tag}.whl"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def add_to(index: PackageIndex, name: str, content: bytes, *, version: str = "1.0") -> str:
    """Put a wheel into an index; return a line of `requirements.txt` that pins it by its hash."""
    index.wheels[file_name(name, version)] = content
    return f"{name}=={version} --hash=sha256:{sha256(content)}"


def startup_wheel(name: str, code: str) -> bytes:
    """A wheel whose `.pth` file runs code at each start of the environment's interpreter."""
    return wheel(name, {f"{name}.py": "", f"{name}.pth": f"import sys; exec({code!r}, {{}})\n"})


def vanishing_wheel(name: str, code: str = "") -> bytes:
    """A wheel whose `.pth` file deletes its own dist-info, so that nothing lists the distribution, and runs code."""
    delete = (
        "import glob, os, shutil, sys\n"
        "for root in sys.path:\n"
        f"    for found in glob.glob(os.path.join(root, '{name}-*.dist-info')):\n"
        "        shutil.rmtree(found, True)\n"
    )
    return startup_wheel(name, delete + code)


def bomb(name: str, megabytes: int) -> bytes:
    """A small wheel that is so large when it is unpacked."""
    return wheel(name, {f"{name}.py": "", f"{name}_data.bin": bytes(megabytes * 1024 * 1024)})


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
