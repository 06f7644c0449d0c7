"""The source of a build: one commit, fetched by git into a directory of its own and written as a tar.

Nothing of the repository is checked out or run here. The tar holds the bytes that were committed: attributes neither
drop nor rewrite a file, links stay links, submodules and large-file pointers are not followed.
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
from shared.git.access import Access, GitCredentials, access_to
from shared.git.command import GitResult, run_git, running_git
from shared.git.errors import git_error
from shared.git.hosted import git_token, internal_url
from shared.git.repository_url import InvalidRepositoryUrlError, RepositoryUrl
from shared.net.address_rules import source_networks
from shared.settings import settings
from shared.subprocesses import Subprocess, SubprocessTimeoutError
from workers.jobs.tempdirs import temporary_directory

MAX_ENTRIES = 500_000
"""Files of one commit. A few small trees that name each other can claim billions."""
FALLBACK_DEPTH = 1000
"""How far back a commit is looked for on the branches of a server that does not give it by its hash."""
CHUNK_BYTES = 64 * 1024

_ATTRIBUTES = "* -export-ignore -export-subst -text -ident -filter !eol !crlf !working-tree-encoding\n"
_NOT_BY_HASH = re.compile(r"not allow request for unadvertised object|Server does not allow")
_NO_SUCH_COMMIT = re.compile(r"not our ref|remote ref .*not found|did not send all necessary objects")


@dataclass(frozen=True)
class Source:
    """A commit's files."""

    tar: Path
    """A plain tar, gone when the block ends."""


@contextmanager
def fetch_source(
    algorithm: Algorithm,
    commit: str,
    credentials: GitCredentials | None = None,
    *,
    log: Callable[[str], None],
    stop: CancelToken,
) -> Iterator[Source]:
    """The files of a commit, given by its full hash, while the block runs.

    `credentials` are those of a private repository elsewhere; a hosted one is read with a token. `log` takes a line of
    the build log.

    Raises:
        WorkError: no such commit or repository (not_found), no commit's hash or a source too large or damaged
            (invalid), credentials refused (auth), unreachable or too slow (transient), disk full (unavailable).
        Stopped: the stop was asked for.
    """
    if not FULL_HASH.fullmatch(commit):
        raise WorkError(ErrorClass.INVALID, "A commit is named by its full hash here.")
    url, credentials = _where(algorithm, credentials)
    with temporary_directory() as directory:
        fetch = _Fetch(directory, url, commit, log, stop)
        try:
            networks = None if algorithm.hosted else source_networks()
            source = fetch.run(access_to(url, credentials, networks))
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
        yield source


def _where(algorithm: Algorithm, credentials: GitCredentials | None) -> tuple[RepositoryUrl, GitCredentials | None]:
    if algorithm.repository_url is None:
        token = git_token("fetch", algorithm.id, settings().source_seconds + 60)
        return RepositoryUrl.parse(internal_url(algorithm), allow_http=True), GitCredentials("job", token)
    try:
        # Checked again: the settings may have changed since the caller's URL was taken.
        url = RepositoryUrl.parse(algorithm.repository_url, allow_http=settings().source_allow_http)
    except InvalidRepositoryUrlError as error:
        raise WorkError(ErrorClass.INVALID, str(error)) from None
    return url, credentials


@dataclass
class _Fetch:
    """One fetch, step by step, under one deadline."""

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

    def run(self, access: Access) -> Source:
        self._init()
        self._download(access)
        self._check_type()
        self._check_files()
        return self._archive()

    def _init(self) -> None:
        object_format = "sha1" if len(self.commit) == 40 else "sha256"
        made = run_git(
            [
                "init",
                "--quiet",
                "--bare",
                "--template=",
                f"--object-format={object_format}",
                "--",
                str(self.repository),
            ],
            timeout=self.remaining,
            stop=self.stop,
        )
        if not made.ok:
            raise git_error(made.errors, self.url)
        (self.repository / "info").mkdir(exist_ok=True)
        (self.repository / "info" / "attributes").write_text(_ATTRIBUTES)

    def _download(self, access: Access) -> None:
        answer = self._fetch(access, 1, f"{self.commit}:refs/longshore/source")
        if not answer.ok and _NOT_BY_HASH.search(answer.errors):
            self.log("The server does not give a commit by its hash; looking for it on the branches and tags.")
            answer = self._fetch(access, FALLBACK_DEPTH, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if answer.ok:
            return
        if self._hit_file_limit():
            raise self._too_large(packed=f"more than {self.limit:,} bytes packed")
        if _NO_SUCH_COMMIT.search(answer.errors):
            raise self._no_such_commit()
        raise git_error(answer.errors, self.url)

    def _fetch(self, access: Access, depth: int, *refspecs: str) -> GitResult:
        return run_git(
            ["fetch", "--quiet", f"--depth={depth}", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules",
             "--no-auto-maintenance", "--", str(self.url), *refspecs],
            git_dir=self.repository,
            timeout=self.remaining,
            max_file_bytes=self.limit,
            stop=self.stop,
            **access,
        )  # fmt: skip

    def _hit_file_limit(self) -> bool:
        """Whether git was killed for a file that would have grown too large; it does not say so itself."""
        packs = (self.repository / "objects" / "pack").glob("*")
        return any(pack.stat().st_size >= self.limit // 512 * 512 for pack in packs)

    def _check_type(self) -> None:
        answer = run_git(
            ["cat-file", "-t", self.commit], git_dir=self.repository, timeout=self.remaining, stop=self.stop
        )
        if not answer.ok:
            raise self._no_such_commit()
        if answer.text != "commit":
            raise WorkError(ErrorClass.INVALID, f"{self.commit} in {self.url} is a {answer.text}, not a commit.")

    def _check_files(self) -> None:
        """Add up what the commit holds before any of it is unpacked."""
        files = size = submodules = 0
        with self._running("ls-tree", "-r", "-l", "-z", self.commit) as process:
            for entry in self._entries(process):
                files += 1
                if files > MAX_ENTRIES:
                    raise WorkError(
                        ErrorClass.INVALID, f"The source has more than {MAX_ENTRIES:,} files, which is the limit."
                    )
                _mode, kind, _name, entry_size = entry.partition(b"\t")[0].split()
                submodules += kind == b"commit"
                size += int(entry_size) if entry_size.isdigit() else 0
            self._must_have_succeeded(process)
        if size > self.limit:
            packed = sum(path.stat().st_size for path in (self.repository / "objects").rglob("*") if path.is_file())
            raise self._too_large(unpacked=f"{size:,} bytes unpacked", packed=f"{packed:,} bytes packed")
        if submodules:
            self.log(f"The source names {submodules} submodule(s); their content is not included.")

    def _archive(self) -> Source:
        tar, written = self.directory / "source.tar", 0
        with self._running("archive", "--format=tar", self.commit) as process, tar.open("wb") as file:
            while chunk := process.stdout.read(CHUNK_BYTES):
                written += len(chunk)
                # The allowance is for headers and padding: what the files hold was counted already.
                if written > self.limit + MAX_ENTRIES * 1024:
                    raise self._too_large(unpacked=f"more than {written:,} bytes as a tar")
                file.write(chunk)
            self._must_have_succeeded(process)
        return Source(tar)

    def _running(self, *args: str) -> AbstractContextManager[Subprocess]:
        return running_git(args, git_dir=self.repository, timeout=self.remaining, stop=self.stop)

    def _must_have_succeeded(self, process: Subprocess) -> None:
        if process.wait() != 0:
            raise self._unreadable()

    def _unreadable(self) -> WorkError:
        return WorkError(
            ErrorClass.INVALID, f"Git cannot read the files of {self.commit}: they are damaged or nested too deep."
        )

    def _no_such_commit(self) -> WorkError:
        return WorkError(ErrorClass.NOT_FOUND, f"There is no commit {self.commit} in {self.url}: push it first.")

    def _too_large(self, *, packed: str = "", unpacked: str = "") -> WorkError:
        sizes = ", ".join(part for part in (unpacked, packed) if part)
        return WorkError(
            ErrorClass.INVALID,
            f"The source of {self.commit} is too large: {sizes}; the limit is {self.limit:,} bytes "
            "(LONGSHORE_SOURCE_MAX_BYTES). Remove large files from it, or ask an administrator.",
        )

    def _entries(self, process: Subprocess) -> Iterator[bytes]:
        rest = b""
        while chunk := process.stdout.read(CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\0")
            if len(rest) > CHUNK_BYTES:  # no path is so long
                raise self._unreadable()
            yield from whole
