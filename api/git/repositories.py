"""The hosted repositories on disk: bare, one per algorithm, named by its id, so that a recreated name gets a new one.

The default branch is the one that HEAD names. It is `main` at first. The first push decides: without `main` it is
`master`, else the first of the pushed branches by name. Later HEAD moves only from a branch that was deleted to `main`
or `master`; without these, the default branch counts as deleted. Before the first push of a branch, a repository is
untouched: fetches then see the algorithm's template on `main` (`api.git.template`).
"""

import os
import shutil
import tempfile
import time
import uuid
from contextlib import AbstractContextManager, suppress
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from api.git.template import Template
from shared.algorithms import FULL_HASH, HASH_PREFIX
from shared.db.models import Algorithm
from shared.environments import UnknownEnvironmentError, chosen_environment
from shared.errors import InvalidInputError
from shared.file_lock import file_lock
from shared.git.command import GitResult, run_git
from shared.settings import settings
from shared.settings.builds import DEFAULT_ENVIRONMENT
from shared.template import template_files

LOCAL_TIMEOUT_SECONDS = 60
STALE_LOCK_GRACE_SECONDS = 300
"""Git locks a reference for milliseconds. A lock file of this age was left by a crash."""
PREFERRED_BRANCHES = ("refs/heads/main", "refs/heads/master")
HIDDEN_REFS = "refs/longshore"
PACK_MEMORY_CONFIG = (
    ("core.packedGitLimit", "256m"),
    ("core.packedGitWindowSize", "32m"),
    ("pack.deltaCacheSize", "64m"),
    ("pack.windowMemory", "64m"),
)
"""Git's settings that bound the memory in which it reads and writes packs."""
LEFTOVER_GRACE_SECONDS = 60 * 60
"""Longer than any request takes."""
_NEVER_PUSHED = "longshore-never-pushed"
_NEW, _DELETED, _PUSH = ".new-", ".deleted-", ".push-"
"""Prefixes of temporary files and directories, beside the repositories."""


class RefCount(NamedTuple):
    """How many references a repository has."""

    loose: int
    """Those that are files of their own."""
    visible: int
    """An upper limit of those that clients see: a reference that is packed and loose counts twice."""


class Repository:
    """One hosted repository. One that does not exist yet counts as empty."""

    def __init__(self, algorithm_id: str) -> None:
        """Raises ValueError: the id is no UUID."""
        self.id = str(uuid.UUID(algorithm_id))
        self.relative_path = f"{self.id[:2]}/{self.id}.git"
        self.path = settings().repositories_dir / self.relative_path
        self.push_lock = self.path / "longshore-push.lock"
        """Locked (shared) by each push from its start until its head is recorded."""
        self.template = Template(self.path)

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    @property
    def is_untouched(self) -> bool:
        """Whether no branch was pushed yet."""
        if not (self.path / _NEVER_PUSHED).exists():
            return not self.exists
        return not self._git("for-each-ref", "--count=1", "refs/heads/").text

    def ensure(self) -> None:
        """Create it atomically, unless it exists."""
        if self.exists:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings().repositories_dir, prefix=_NEW) as directory:
            new = Path(directory) / "repository"
            result = run_git(
                ["init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", str(new)],
                timeout=LOCAL_TIMEOUT_SECONDS,
            )
            if not result.ok:
                raise RuntimeError(f"git init failed: {result.errors}")
            (new / _NEVER_PUSHED).touch()
            try:
                new.rename(self.path)
            except OSError:
                if not self.exists:  # else another request has just created it
                    raise

    def ensure_template(self, algorithm: Algorithm) -> bool:
        """Make the template of an untouched repository, which is created as well; return whether fetches see it.

        A changed environment of the algorithm changes the template.
        """
        if self.exists and not (self.path / _NEVER_PUSHED).exists():
            return False
        self.ensure()
        files = template_files(algorithm.name, algorithm.owner, _environment_name(algorithm))
        with self.locked():
            if not self.is_untouched:
                return False
            self.template.ensure(files, algorithm.created_at // 1000, self._other_refs())
            return True

    def delete(self) -> None:
        """Remove it atomically."""
        if not self.exists:
            return
        with tempfile.TemporaryDirectory(dir=settings().repositories_dir, prefix=_DELETED) as directory:
            self.path.rename(Path(directory) / "repository")

    def locked(self) -> AbstractContextManager[None]:
        return file_lock(self.path / "longshore.lock")

    def head(self) -> str | None:
        """Return the newest commit of the default branch; None if there is none."""
        if not self.exists:
            return None
        result = self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return result.text if result.ok and FULL_HASH.fullmatch(result.text) else None

    def settle_default_branch(self) -> None:
        """Point HEAD at a branch that exists, by the rule in the docstring of this module."""
        if self._git("rev-parse", "--verify", "--quiet", "HEAD").ok:
            self._end_template()
            return
        branches = self._git("for-each-ref", "--format=%(refname)", "refs/heads/").text.splitlines()
        candidates = [branch for branch in PREFERRED_BRANCHES if branch in branches]
        if (self.path / _NEVER_PUSHED).exists():
            candidates += branches
        if candidates:
            self._must("symbolic-ref", "HEAD", candidates[0])
            self._end_template()
        elif self.template.exists:
            self.template.show(self._other_refs())

    def resolve(self, commit: str | None) -> str:
        """Return the full hash for a full hash or an unambiguous prefix; for None, the newest of the default branch.

        Raises:
            InvalidInputError: one of the four cases; the message says which.
        """
        if commit is None:
            if self.is_untouched and self.template.exists:
                return self.template.commit()
            head = self.head()
            if head is None and (not self.exists or (self.path / _NEVER_PUSHED).exists()):
                raise InvalidInputError("The repository is empty: push a commit first.")
            if head is None:
                raise InvalidInputError("The default branch was deleted: push it again, or name a commit.")
            return head
        commit = commit.lower()
        if not HASH_PREFIX.fullmatch(commit):
            raise InvalidInputError("A commit is named by its hash: 7 to 64 hexadecimal digits.")
        # Not with `rev-parse NAME`: the name of a branch may look like a hash.
        objects = self._git("rev-parse", f"--disambiguate={commit}").text.splitlines() if self.exists else []
        commits = [name for name in objects if self._git("cat-file", "-t", name).text == "commit"]
        if not commits:
            raise InvalidInputError(f"There is no commit {commit} in the repository: push it first.")
        if len(commits) > 1:
            raise InvalidInputError(f"{commit} is ambiguous: {len(commits)} commits begin so; give more of the hash.")
        return commits[0]

    def keep(self, commit: str) -> None:
        """Keep a commit by a hidden reference, even if its branch is deleted or moved."""
        self._must("update-ref", f"{HIDDEN_REFS}/commits/{commit}", commit)

    def remove_stale_locks(self) -> None:
        """Remove the lock files that a crash left: they would make every further push fail."""
        for path in (self.path / "HEAD.lock", self.path / "packed-refs.lock", *(self.path / "refs").rglob("*.lock")):
            try:
                if time.time() - path.stat().st_mtime > STALE_LOCK_GRACE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue

    def remove_interrupted_pushes(self) -> None:
        """Remove temporary files of killed pushes. The caller holds the push lock, so no other push is in progress."""
        for pattern in ("tmp_objdir-*", "pack/tmp_*", "pack/.tmp-*"):
            for path in (self.path / "objects").glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def count_refs(self) -> RefCount:
        """Count the reference files and the lines of `packed-refs`."""
        loose = [path.relative_to(self.path) for path in (self.path / "refs").rglob("*") if not path.is_dir()]
        visible = sum(not path.is_relative_to(HIDDEN_REFS) for path in loose)
        with suppress(FileNotFoundError), (self.path / "packed-refs").open("rb") as file:
            visible += sum(b" refs/" in line and HIDDEN_REFS.encode() not in line for line in file)
        return RefCount(len(loose), visible)

    def disk_bytes(self) -> int:
        """Return the disk space of its files and directories."""
        total = 0
        for directory, _, names in os.walk(self.path):
            for name in (".", *names):
                with suppress(FileNotFoundError):  # git may just have removed it
                    total += os.lstat(os.path.join(directory, name)).st_blocks * 512
        return total

    def _end_template(self) -> None:
        if (self.path / _NEVER_PUSHED).exists():
            self.template.remove()
            (self.path / _NEVER_PUSHED).unlink(missing_ok=True)

    def _other_refs(self) -> list[tuple[str, str]]:
        """Return hashes and names of what was pushed that is no branch: tags, for example."""
        listed = self._git("for-each-ref", "--format=%(objectname) %(refname)", "refs/").text.splitlines()
        pairs = ((git_hash, name) for git_hash, _, name in (line.partition(" ") for line in listed))
        return [pair for pair in pairs if not pair[1].startswith(("refs/heads/", f"{HIDDEN_REFS}/"))]

    def _git(self, *args: str) -> GitResult:
        return run_git(args, git_dir=self.path, timeout=LOCAL_TIMEOUT_SECONDS)

    def _must(self, *args: str) -> None:
        result = self._git(*args)
        if not result.ok:
            raise RuntimeError(f"git {args[0]} failed in {self.relative_path}: {result.errors}")


def _environment_name(algorithm: Algorithm) -> str:
    try:
        return chosen_environment(algorithm.settings).name
    except UnknownEnvironmentError:  # its build says so
        return DEFAULT_ENVIRONMENT


def new_push_file() -> Path:
    """Create a file in which a hook writes the options of a push."""
    descriptor, name = tempfile.mkstemp(dir=settings().repositories_dir, prefix=_PUSH)
    os.close(descriptor)
    return Path(name)


def remove_leftovers() -> None:
    """Remove temporary files and directories of a service that was killed: a deleted repository may be large."""
    for entry in settings().repositories_dir.iterdir():
        if not entry.name.startswith((_NEW, _DELETED, _PUSH)):
            continue
        with suppress(FileNotFoundError):
            if time.time() - entry.stat().st_mtime < LEFTOVER_GRACE_SECONDS:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def install_hooks() -> None:
    """Write the hooks where git runs them: the files of an installed package are not always executable."""
    directory = hooks_dir()
    directory.mkdir(parents=True, exist_ok=True)
    for hook in resources.files("api.git").joinpath("hooks").iterdir():
        if "." in hook.name:
            continue
        descriptor, name = tempfile.mkstemp(dir=directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hook.read_bytes())
            os.fchmod(file.fileno(), 0o755)
        os.replace(name, directory / hook.name)


def hooks_dir() -> Path:
    return settings().repositories_dir / ".hooks"
