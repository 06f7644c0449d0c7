"""The one place that starts git: a clean environment, no prompts, limits, and an end that takes its children along.

What a caller wrote never becomes an option: users of this module put `--` or `--end-of-options` before it, and check
references and hashes first. Secrets go through `config`, which stands in git's environment, never in its arguments
or in a file (git-config(1), GIT_CONFIG_COUNT).
"""

import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shared.cancellation import CancelToken
from shared.settings.serving import MEBIBYTE

FULL_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""A commit's whole name: SHA-1, or SHA-256 in repositories of that format."""

MEMORY_KIBIBYTES = 4 * 1024 * 1024
"""Address space of one git process: a small delta can claim to unpack to gigabytes."""
KEPT_ERROR_BYTES = 16 * 1024
"""How much of the end of stderr is kept: the other side can write there without end."""

# The shell sets the limits before git exists, so no child of git can slip past them. 512-byte blocks (POSIX ulimit).
_LIMITED = 'ulimit -v "$1" 2>/dev/null || :; [ "$2" = - ] || ulimit -f "$2" 2>/dev/null || :; shift 2; exec git "$@"'

_PASSED_ON = (
    "PATH",
    "TMPDIR",
    "GIT_EXEC_PATH",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(name for lower in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (lower, lower.upper())),
)

_TOLERATED = ("badTimezone", "missingSpaceBeforeDate", "zeroPaddedFilemode")
"""Flaws that old but honest histories have, and that harm nobody."""

Config = Iterable[tuple[str, str]]

BASE_CONFIG: tuple[tuple[str, str], ...] = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.bigFileThreshold", "8m"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.unpackLimit", "1"),
    ("http.followRedirects", "false"),
    ("maintenance.auto", "false"),
    ("pack.threads", "2"),
    ("protocol.version", "2"),
    ("safe.directory", "*"),
    ("submodule.recurse", "false"),
    ("transfer.fsckObjects", "true"),
    *((f"{command}.fsck.{flaw}", "ignore") for command in ("fetch", "receive") for flaw in _TOLERATED),
)


class GitTimeoutError(Exception):
    """Git did not end in the time that it was given, and was killed."""


@dataclass(frozen=True)
class GitAnswer:
    """What a git command left: its exit status, its output, and the end of its error messages."""

    status: int
    output: bytes
    errors: str
    cut: bool = False
    """Whether there was more output than was allowed; git was killed then."""

    @property
    def ok(self) -> bool:
        """Whether git says that it succeeded, and all it wrote is here."""
        return self.status == 0 and not self.cut

    @property
    def text(self) -> str:
        """The output as text, without the newline at its end."""
        return self.output.decode("utf-8", "replace").rstrip("\n")


class GitProcess:
    """A git that runs in a process group of its own; `end` leaves none of the group behind."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._lock = threading.Lock()
        self._reaped = False
        self._errors = bytearray()
        self.timed_out = False
        self._drain = threading.Thread(target=self._keep_errors, daemon=True)
        self._drain.start()

    @property
    def stdout(self) -> IO[bytes]:
        """What git writes."""
        assert self._process.stdout is not None  # noqa: S101 - always a pipe, see start_git
        return self._process.stdout

    @property
    def stdin(self) -> IO[bytes] | None:
        """What git reads, where it was started to read."""
        return self._process.stdin

    @property
    def errors(self) -> str:
        """The end of what git wrote to stderr so far."""
        return bytes(self._errors).decode("utf-8", "replace").strip()

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Signal the whole group, from any thread; harmless once it has ended."""
        with self._lock:
            # Until the leader is reaped its number cannot be anybody else's.
            if not self._reaped:
                os.killpg(self._process.pid, signal_number)

    def time_out(self) -> None:
        """Kill the group because its time is up."""
        self.timed_out = True
        self.kill()

    def wait(self) -> int:
        """Wait for git to end; its exit status, negative for a signal. What it left running in its group is killed."""
        if not self._reaped:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self.kill()
            with self._lock:
                self._process.wait()
                self._reaped = True
            self._drain.join()
        return self._process.returncode

    def end(self, *, gently: bool = False) -> None:
        """Make sure that git has ended. `gently`: with five seconds to remove its lock files first."""
        if not self._reaped:
            killer = threading.Timer(5, self.kill)
            killer.daemon = True
            killer.start()
            self.kill(signal.SIGTERM if gently else signal.SIGKILL)
            self.wait()
            killer.cancel()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # unwritten input for a process that is gone
                    continue

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - always a pipe, see start_git
        while chunk := os.read(self._process.stderr.fileno(), 4096):
            self._errors += chunk
            del self._errors[:-KEPT_ERROR_BYTES]


def clean_environment(
    config: Config = (), *, protocols: Iterable[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a git: nothing of the operator's but search path, certificates and proxies.

    `protocols` are the only transports that git may use. `extra` is added as it is.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment.setdefault("PATH", os.defpath)
    if "SSL_CERT_FILE" in environment:
        # Git's libcurl does not look at this variable where it was built with GnuTLS.
        environment.setdefault("GIT_SSL_CAINFO", environment["SSL_CERT_FILE"])
    environment |= {
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols),
        "GIT_ASKPASS": "",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    settings = [*BASE_CONFIG, *config]
    environment["GIT_CONFIG_COUNT"] = str(len(settings))
    for number, (name, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{number}"] = name
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment | dict(extra or {})


def start_git(
    args: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    max_file_bytes: int | None = None,
    reads_input: bool = False,
) -> GitProcess:
    """Start git in a process group of its own; whoever starts it calls `end`.

    No file that it writes grows beyond `max_file_bytes` (it is killed with SIGXFSZ then).
    """
    blocks = "-" if max_file_bytes is None else str(max(1, max_file_bytes // 512))
    return GitProcess(
        subprocess.Popen(
            ["/bin/sh", "-c", _LIMITED, "git", str(MEMORY_KIBIBYTES), blocks, *args],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.PIPE if reads_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    )


@contextmanager
def running_git(
    args: Sequence[str],
    *,
    git_dir: Path | None = None,
    config: Config = (),
    protocols: Iterable[str] = (),
    extra_environment: Mapping[str, str] | None = None,
    timeout: float,
    max_file_bytes: int | None = None,
    stop: CancelToken | None = None,
) -> Iterator[GitProcess]:
    """A git whose output the block reads; when the block ends, so does git.

    `git_dir` is the repository; without it git finds none. `timeout` is in seconds, for the block as a whole.

    Raises:
        GitTimeoutError: the time was up.
        Stopped: the stop was asked for.
    """
    with ExitStack() as stack:
        cwd = git_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="longshore-git-")))
        place = {"GIT_CEILING_DIRECTORIES": str(cwd.parent)} if git_dir is None else {"GIT_DIR": str(git_dir)}
        environment = clean_environment(config, protocols=protocols, extra=place | dict(extra_environment or {}))
        process = start_git(args, environment=environment, cwd=cwd, max_file_bytes=max_file_bytes)
        stack.callback(process.end)
        timer = threading.Timer(max(timeout, 0), process.time_out)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        if stop is not None:
            stack.enter_context(stop.interrupting(process.kill))
        try:
            yield process
        except Exception as error:
            if process.timed_out:
                raise GitTimeoutError from error
            raise
        if process.timed_out:
            raise GitTimeoutError


def run_git(
    args: Sequence[str],
    *,
    git_dir: Path | None = None,
    config: Config = (),
    protocols: Iterable[str] = (),
    extra_environment: Mapping[str, str] | None = None,
    timeout: float,
    max_file_bytes: int | None = None,
    max_output_bytes: int = 16 * MEBIBYTE,
    stop: CancelToken | None = None,
) -> GitAnswer:
    """Run git to its end; the caller judges the exit status. The arguments are those of `running_git`.

    Raises:
        GitTimeoutError: the time was up.
        Stopped: the stop was asked for.
    """
    with running_git(
        args,
        git_dir=git_dir,
        config=config,
        protocols=protocols,
        extra_environment=extra_environment,
        timeout=timeout,
        max_file_bytes=max_file_bytes,
        stop=stop,
    ) as process:
        output = process.stdout.read(max_output_bytes + 1)
        cut = len(output) > max_output_bytes
        if cut:
            process.kill()
        return GitAnswer(process.wait(), output[:max_output_bytes], process.errors, cut)
