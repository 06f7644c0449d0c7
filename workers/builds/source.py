"""Fetch the source of a build: one commit, fetched by git into a temporary directory and written as a tar.

Nothing of the repository is checked out or run. The tar has the bytes that were committed: attributes neither exclude
nor rewrite a file, links stay links, submodules and large-file pointers are not followed.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC
from pathlib import Path

from shared.algorithms import FULL_HASH
from shared.cancellation import CancelToken
from shared.db.models import Algorithm
from shared.errors import ErrorClass, WorkError
from shared.git.access import Access, GitCredentials, make_access
from shared.git.command import GitResult, run_git, running_git
from shared.git.errors import git_error
from shared.git.hosted import git_token, internal_url
from shared.git.repository_url import InvalidRepositoryUrlError, RepositoryUrl
from shared.git.sources import reach_repository
from shared.settings import settings
from shared.subprocesses import Subprocess, SubprocessTimeoutError
from workers.jobs.tempdirs import temporary_directory

MAX_ENTRIES = 500_000
"""Limit for the files of one commit: a few small trees that refer to each other can have billions."""
FALLBACK_DEPTH = 1000
"""Commits of each branch that are fetched from a server that does not return a commit by its hash."""
CHUNK_BYTES = 64 * 1024

_ATTRIBUTES = "* -export-ignore -export-subst -text -ident -filter !eol !crlf !working-tree-encoding\n"
_HASH_REFUSED = re.compile(r"not allow request for unadvertised object|Server does not allow")
_NO_SUCH_COMMIT = re.compile(r"not our ref|remote ref .*not found|did not send all necessary objects")


@contextmanager
def fetch_source(
    algorithm: Algorithm,
    commit: str,
    credentials: GitCredentials | None = None,
    *,
    log: Callable[[str], None],
    stop: CancelToken,
) -> Iterator[Path]:
    """Fetch a commit by its full hash, and yield the path of a plain tar of its files, deleted at the end of the block.

    `credentials` are those of a private repository; a hosted one is read with a token. `log` takes a line of the build
    log.

    Raises:
        WorkError: no such commit or repository (not_found); not a commit's hash, or a source too large or damaged
            (invalid); credentials refused (auth); unreachable or too slow (transient); disk full (unavailable).
        WorkCancelledError: the build was cancelled.
    """
    if not FULL_HASH.fullmatch(commit):
        raise WorkError(ErrorClass.INVALID, f"{commit[:200]!r} is not the full hash of a commit.")
    url, credentials = _repository(algorithm, credentials)
    with temporary_directory() as directory:
        fetch = _Fetch(directory, url, commit, log, stop)
        try:
            tar = fetch.run(fetch.access(algorithm, credentials))
        except SubprocessTimeoutError:
            raise WorkError(
                ErrorClass.TRANSIENT,
                f"Fetching {commit} from {url} took longer than {settings().source_seconds} s "
                "(LONGSHORE_SOURCE_SECONDS).",
            ) from None
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise git_error("No space left on device", url) from None
            raise
        yield tar


def _repository(
    algorithm: Algorithm, credentials: GitCredentials | None
) -> tuple[RepositoryUrl, GitCredentials | None]:
    if algorithm.repository_url is None:
        token = git_token("fetch", algorithm.id, settings().source_seconds + 60)
        return RepositoryUrl.parse(internal_url(algorithm), allow_http=True), GitCredentials("job", token)
    try:
        # Checked again: the settings may have changed since the caller set the URL.
        url = RepositoryUrl.parse(algorithm.repository_url, allow_http=settings().source_allow_http)
    except InvalidRepositoryUrlError as error:
        raise WorkError(ErrorClass.INVALID, str(error)) from None
    return url, credentials


@dataclass
class _Fetch:
    """The steps of one fetch, under one deadline."""

    directory: Path
    url: RepositoryUrl
    commit: str
    log: Callable[[str], None]
    stop: CancelToken
    limit: int = field(default_factory=lambda: settings().source_max_bytes)
    deadline: float = field(default_factory=lambda: time.monotonic() + settings().source_seconds)

    @property
    def repository(self) -> Path:
        return self.directory / "repository.git"

    @property
    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    def access(self, algorithm: Algorithm, credentials: GitCredentials | None) -> Access:
        if algorithm.hosted:
            return make_access(self.url, credentials)
        return reach_repository(self.url, credentials, owner=algorithm.owner, timeout=self.remaining, stop=self.stop)

    def run(self, access: Access) -> Path:
        self._init_repository()
        self._download(access)
        self._check_type()
        self._check_files()
        return self._archive()

    def _init_repository(self) -> None:
        result = run_git(
            ["init", "--quiet", "--bare", "--template=",
             f"--object-format={'sha1' if len(self.commit) == 40 else 'sha256'}", "--", str(self.repository)],
            timeout=self.remaining,
            stop=self.stop,
        )  # fmt: skip
        if not result.ok:
            raise git_error(result.errors, self.url)
        (self.repository / "info").mkdir(exist_ok=True)
        (self.repository / "info" / "attributes").write_text(_ATTRIBUTES)

    def _download(self, access: Access) -> None:
        result = self._fetch(access, 1, f"{self.commit}:refs/longshore/source")
        if not result.ok and _HASH_REFUSED.search(result.errors):
            self.log("The server does not return a commit by its hash; looking for it on the branches and tags.")
            result = self._fetch(access, FALLBACK_DEPTH, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if result.ok:
            return
        # Git's output does not say that it was ended by its limit on the size of a file.
        packs = (self.repository / "objects" / "pack").glob("*")
        if any(pack.stat().st_size >= self.limit // 512 * 512 for pack in packs):
            raise self._too_large_error(packed=f"more than {self.limit:,} bytes packed")
        if _NO_SUCH_COMMIT.search(result.errors):
            raise self._no_commit_error()
        raise git_error(result.errors, self.url)

    def _fetch(self, access: Access, depth: int, *refspecs: str) -> GitResult:
        return run_git(
            ["fetch", "--quiet", f"--depth={depth}", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules",
             "--no-auto-maintenance", "--", str(self.url), *refspecs],
            git_dir=self.repository,
            timeout=self.remaining,
            max_file_bytes=self.limit,
            stop=self.stop,
            **access.options,
        )  # fmt: skip

    def _check_type(self) -> None:
        result = run_git(
            ["cat-file", "-t", self.commit], git_dir=self.repository, timeout=self.remaining, stop=self.stop
        )
        if not result.ok:
            raise self._no_commit_error()
        if result.text != "commit":
            raise WorkError(ErrorClass.INVALID, f"{self.commit} in {self.url} is a {result.text}, not a commit.")

    def _check_files(self) -> None:
        """Check the number and size of the commit's files before any of them is unpacked."""
        files = size = submodules = 0
        with self._git("ls-tree", "-r", "-l", "-z", self.commit) as process:
            for entry in self._entries(process):
                files += 1
                if files > MAX_ENTRIES:
                    raise WorkError(
                        ErrorClass.INVALID, f"The source has more than {MAX_ENTRIES:,} files, which is the limit."
                    )
                _mode, kind, _name, entry_size = entry.partition(b"\t")[0].split()
                submodules += kind == b"commit"
                size += int(entry_size) if entry_size.isdigit() else 0
            self._require_success(process)
        if size > self.limit:
            packed = sum(path.stat().st_size for path in (self.repository / "objects").rglob("*") if path.is_file())
            raise self._too_large_error(unpacked=f"{size:,} bytes unpacked", packed=f"{packed:,} bytes packed")
        if submodules:
            self.log(f"The source names {submodules} submodule(s); their content is not included.")

    def _archive(self) -> Path:
        tar, written = self.directory / "source.tar", 0
        with self._git("archive", "--format=tar", self.commit) as process, tar.open("wb") as file:
            while chunk := process.stdout.read(CHUNK_BYTES):
                written += len(chunk)
                # Headers and padding are extra: the content of the files was counted already.
                if written > self.limit + MAX_ENTRIES * 1024:
                    raise self._too_large_error(unpacked=f"more than {written:,} bytes as a tar")
                file.write(chunk)
            self._require_success(process)
        return tar

    def _git(self, *args: str) -> AbstractContextManager[Subprocess]:
        return running_git(args, git_dir=self.repository, timeout=self.remaining, stop=self.stop)

    def _require_success(self, process: Subprocess) -> None:
        if process.wait() != 0:
            raise self._unreadable_error()

    def _unreadable_error(self) -> WorkError:
        return WorkError(
            ErrorClass.INVALID, f"Git cannot read the files of {self.commit}: they are damaged or nested too deep."
        )

    def _no_commit_error(self) -> WorkError:
        return WorkError(ErrorClass.NOT_FOUND, f"There is no commit {self.commit} in {self.url}: push it first.")

    def _too_large_error(self, *, packed: str = "", unpacked: str = "") -> WorkError:
        return WorkError(
            ErrorClass.INVALID,
            f"The source of {self.commit} is too large: {', '.join(filter(None, (unpacked, packed)))}; "
            f"the limit is {self.limit:,} bytes "
            "(LONGSHORE_SOURCE_MAX_BYTES). Remove large files from it, or ask an administrator.",
        )

    def _entries(self, process: Subprocess) -> Iterator[bytes]:
        rest = b""
        while chunk := process.stdout.read(CHUNK_BYTES):
            *entries, rest = (rest + chunk).split(b"\0")
            if len(rest) > CHUNK_BYTES:  # longer than any path
                raise self._unreadable_error()
            yield from entries
