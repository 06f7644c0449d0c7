"""The first commit of a hosted repository: a template, which fetches see until a branch is pushed.

Fetches from a repository without branches read a small repository inside of it, which has a branch `main` at the
template, and the objects of the outer one (gitrepository-layout(5), `objects/info/alternates`). Pushes never see it, so
that they find an empty repository: git would otherwise reject a first push of a history that does not begin with the
template. What is pushed replaces the template at once, because the outer repository is read instead.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from shared.git.command import run_git

DIRECTORY = "template"
TEMPLATE_REF = "refs/longshore/template"
"""Keeps the commit in the outer repository. Clients do not see it."""
_BRANCH = "refs/heads/main"
_DIGEST = "longshore-digest"
"""The file with the SHA-256 of what the commit was made from; written last."""
_TIMEOUT_SECONDS = 60
_AUTHOR = "Longshore <longshore@localhost>"
_MESSAGE = b"Template of a new algorithm\n"
_CONFIG = (
    ("core.fsync", "all"),
    ("fastimport.unpackLimit", "1"),  # one pack instead of a file for each object
)


class Template:
    """The template of one repository. Whoever changes it holds the repository's lock."""

    def __init__(self, outer: Path) -> None:
        self._outer = outer
        self._path = outer / DIRECTORY

    @property
    def exists(self) -> bool:
        return (self._path / _DIGEST).exists()

    def commit(self) -> str:
        """Return the full hash of its commit."""
        return self._git("rev-parse", "--verify", f"{TEMPLATE_REF}^{{commit}}")

    def ensure(self, files: Mapping[str, bytes], made_at: int, other_refs: Iterable[tuple[str, str]]) -> None:
        """Make the commit of these files, unless it exists. The same files and time give the same hash.

        `made_at` is in seconds. `other_refs` are hashes and names of what fetches see beside the commit.
        """
        stream = b"".join(_fast_import_stream(files, made_at))
        digest = hashlib.sha256(stream).hexdigest()
        if self.exists and (self._path / _DIGEST).read_text() == digest:
            return
        self._git("fast-import", "--quiet", "--force", "--date-format=raw", data=stream)
        for directory in ("objects/info", "refs"):
            (self._path / directory).mkdir(parents=True, exist_ok=True)
        self._write("HEAD", f"ref: {_BRANCH}\n")
        self._write("objects/info/alternates", "../../objects\n")
        self.show(other_refs)
        self._write(_DIGEST, digest)

    def show(self, refs: Iterable[tuple[str, str]]) -> None:
        """Show these hashes and names, and no others, beside the commit: what was pushed that is no branch."""
        visible = sorted([(self.commit(), _BRANCH), *refs], key=lambda pair: pair[1])
        self._write("packed-refs", "".join(f"{git_hash} {name}\n" for git_hash, name in visible))

    def remove(self) -> None:
        """Remove it after a first push. What was pushed or compiled of it stays."""
        if self.exists:
            self._git("update-ref", "-d", TEMPLATE_REF)
            shutil.rmtree(self._path)

    def _write(self, name: str, text: str) -> None:
        """Write a file that a crash does not leave half-written."""
        path = self._path / name
        new = path.with_name(f"{path.name}.new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def _git(self, *args: str, data: bytes = b"") -> str:
        result = run_git(args, git_dir=self._outer, config=_CONFIG, timeout=_TIMEOUT_SECONDS, data=data)
        if not result.ok:
            raise RuntimeError(f"git {args[0]} failed in {self._outer}: {result.errors}")
        return result.text


def _fast_import_stream(files: Mapping[str, bytes], made_at: int) -> Iterator[bytes]:
    """Yield the input of git-fast-import(1) for a commit without parents."""
    yield f"feature done\ncommit {TEMPLATE_REF}\ncommitter {_AUTHOR} {made_at} +0000\n".encode()
    yield _data(_MESSAGE)
    for path, content in sorted(files.items()):
        yield f"M 100644 inline {path}\n".encode()
        yield _data(content)
    yield b"done\n"


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)
