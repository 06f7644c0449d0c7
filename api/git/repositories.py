"""The hosted repositories on disk: bare, one per algorithm, named by its id, so that a new name revives no old source.

The default branch is the one that HEAD names. It is `main` at first. The first push decides: with no `main`, it is
`master`, else the first of the pushed branches by name. Later HEAD moves only from a branch that was deleted to `main`
or `master`; with neither there, the default branch counts as deleted.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from shared.algorithms import FULL_HASH, HASH_PREFIX
from shared.errors import InvalidInputError
from shared.file_lock import file_lock
from shared.git.command import GitResult, run_git
from shared.settings import settings

LOCAL_SECONDS = 60
"""How long a git command on a local repository may take."""
STALE_LOCK_SECONDS = 300
"""A reference is locked for milliseconds; a lock file of this age was left by a crash."""
PREFERRED_BRANCHES = ("refs/heads/main", "refs/heads/master")
KEPT_REFS = "refs/longshore/commits"
_NEVER_PUSHED = "longshore-never-pushed"
_LOCK = "longshore.lock"


class Repository:
    """One hosted repository; it may not exist yet, which is as good as empty."""

    def __init__(self, algorithm_id: str) -> None:
        """Raises ValueError: the id is no UUID."""
        self.id = str(uuid.UUID(algorithm_id))
        self.relative_path = f"{self.id[:2]}/{self.id}.git"
        self.path = settings().repositories_dir / self.relative_path

    @property
    def exists(self) -> bool:
        """Whether it is on disk."""
        return self.path.is_dir()

    def ensure(self) -> None:
        """Make it, whole or not at all, unless it is there."""
        if self.exists:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings().repositories_dir, prefix=".new-") as directory:
            new = Path(directory) / "repository"
            made = run_git(
                ["init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", str(new)],
                timeout=LOCAL_SECONDS,
            )
            if not made.ok:
                raise RuntimeError(f"git init failed: {made.errors}")
            (new / _NEVER_PUSHED).touch()
            try:
                new.rename(self.path)
            except OSError:
                if not self.exists:  # else somebody else was quicker
                    raise

    def delete(self) -> None:
        """Remove it, at once for everybody who looks."""
        if not self.exists:
            return
        with tempfile.TemporaryDirectory(dir=settings().repositories_dir, prefix=".deleted-") as directory:
            self.path.rename(Path(directory) / "repository")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else of this service is in a block like this for the repository."""
        with file_lock(self.path / _LOCK):
            yield

    def head(self) -> str | None:
        """The newest commit of the default branch, or None where there is none."""
        if not self.exists:
            return None
        answer = self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return answer.text if answer.ok and FULL_HASH.fullmatch(answer.text) else None

    def settle_default_branch(self) -> None:
        """Point HEAD at a branch that exists, as far as the rule above says."""
        if self._git("rev-parse", "--verify", "--quiet", "HEAD").ok:
            (self.path / _NEVER_PUSHED).unlink(missing_ok=True)
            return
        branches = self._git("for-each-ref", "--format=%(refname)", "refs/heads/").text.splitlines()
        candidates = [branch for branch in PREFERRED_BRANCHES if branch in branches]
        if (self.path / _NEVER_PUSHED).exists():
            candidates += branches
        if candidates:
            self._must("symbolic-ref", "HEAD", candidates[0])
            (self.path / _NEVER_PUSHED).unlink(missing_ok=True)

    def resolve(self, commit: str | None) -> str:
        """The full hash of a commit by full hash or unambiguous prefix; None: the newest of the default branch.

        Raises:
            InvalidInputError: one of the four cases; the message says which.
        """
        if commit is None:
            return self._newest()
        commit = commit.lower()
        if not HASH_PREFIX.fullmatch(commit):
            raise InvalidInputError("A commit is named by its hash: 7 to 64 hexadecimal digits.")
        # Never by rev-parse: a branch may be called like a hash.
        found = self._git("rev-parse", f"--disambiguate={commit}").text.splitlines() if self.exists else []
        commits = [name for name in found if self._git("cat-file", "-t", name).text == "commit"]
        if not commits:
            raise InvalidInputError(f"There is no commit {commit} in the repository: push it first.")
        if len(commits) > 1:
            raise InvalidInputError(f"{commit} is ambiguous: {len(commits)} commits begin so; give more of the hash.")
        return commits[0]

    def keep(self, commit: str) -> None:
        """Keep a commit by a hidden reference, whatever becomes of its branch."""
        self._must("update-ref", f"{KEPT_REFS}/{commit}", commit)

    def remove_stale_locks(self) -> None:
        """Remove the lock files that a crash left, which would refuse every further push."""
        names = [self.path / "HEAD.lock", self.path / "packed-refs.lock", *(self.path / "refs").rglob("*.lock")]
        for name in names:
            try:
                if time.time() - name.stat().st_mtime > STALE_LOCK_SECONDS:
                    name.unlink()
            except FileNotFoundError:
                continue

    def _newest(self) -> str:
        if not self.exists or (self.path / _NEVER_PUSHED).exists():
            raise InvalidInputError("The repository is empty: push a commit first.")
        head = self.head()
        if head is None:
            raise InvalidInputError("The default branch was deleted: push it again, or name a commit.")
        return head

    def _git(self, *args: str) -> GitResult:
        return run_git(args, git_dir=self.path, timeout=LOCAL_SECONDS)

    def _must(self, *args: str) -> None:
        answer = self._git(*args)
        if not answer.ok:
            raise RuntimeError(f"git {args[0]} failed in {self.relative_path}: {answer.errors}")


def install_hooks() -> None:
    """Write the hooks where git runs them; an installed package's files are not always executable."""
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
    """Where git looks for the hooks of every hosted repository."""
    return settings().repositories_dir / ".hooks"
