"""Run git with a clean environment, without prompts and under limits. Nothing else in Longshore starts git.

Text from a caller never becomes an option: users of this module put `--` or `--end-of-options` before it, and check
references and hashes first. Secrets go through `config`, which is passed in git's environment, never in its arguments
or in a file (git-config(1), GIT_CONFIG_COUNT).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from shared.cancellation import CancelToken
from shared.settings.serving import MEBIBYTE
from shared.subprocesses import Subprocess, running

MAX_MEMORY_BYTES = 4096 * MEBIBYTE
"""Address space of one git process: a small delta can claim to unpack to gigabytes."""
ULIMIT_BLOCK_BYTES = 512
NO_REPOSITORY = Path("/proc")
"""Where git works without a repository: none can be made there, and a killed process leaves nothing behind."""

# The shell sets the limits before git starts, so they hold for every child of git.
_LIMITED = """
limit() { [ "$2" = - ] || ulimit "$1" "$2" 2>/dev/null || :; }
limit -v "$1"
limit -f "$2"
limit -t "$3"
niceness=$4
shift 4
exec nice -n "$niceness" git "$@"
"""

_INHERITED = (
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
"""Harmless flaws that old histories have."""

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


@dataclass(frozen=True)
class GitLimits:
    """Limits of each process of a git command."""

    memory_bytes: int = MAX_MEMORY_BYTES
    """Of address space."""
    file_bytes: int | None = None
    """No file that git writes grows beyond it: git is killed with SIGXFSZ then."""
    cpu_seconds: int | None = None
    niceness: int = 0

    @property
    def ulimits(self) -> list[str]:
        """The arguments of the shell that sets them: kibibytes, blocks, seconds, niceness (POSIX ulimit, nice)."""
        blocks = "-" if self.file_bytes is None else str(max(1, self.file_bytes // ULIMIT_BLOCK_BYTES))
        seconds = "-" if self.cpu_seconds is None else str(self.cpu_seconds)
        return [str(self.memory_bytes // 1024), blocks, seconds, str(self.niceness)]


@dataclass(frozen=True)
class GitResult:
    """The exit status of a git command, its output, and the end of its error messages."""

    status: int
    output: bytes
    errors: str
    is_cut: bool = False
    """Whether there was more output than allowed; git was killed then."""

    @property
    def ok(self) -> bool:
        """Whether git succeeded and `output` is complete."""
        return self.status == 0 and not self.is_cut

    @property
    def text(self) -> str:
        """The output as text, without the newline at its end."""
        return self.output.decode("utf-8", "replace").rstrip("\n")


class GitOptions(TypedDict, total=False):
    """Options of `running_git` and `run_git`."""

    git_dir: Path
    """The repository. Without it git finds none."""
    protocols: Iterable[str]
    """The only transports that git may use."""
    config: Config
    extra_environment: Mapping[str, str]
    data: bytes
    """What git reads from its standard input, all at once: for commands that first read and then write."""
    max_file_bytes: int
    stop: CancelToken


def clean_environment(
    config: Config = (), *, protocols: Iterable[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a git: from the operator's only search path, certificates and proxies.

    `protocols` are the only transports that git may use. `extra` is added unchanged.
    """
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment.setdefault("PATH", os.defpath)
    if "SSL_CERT_FILE" in environment:
        # A libcurl that was built with GnuTLS ignores SSL_CERT_FILE.
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
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | dict(extra or {})


def start_git(
    args: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    timeout: float,
    limits: GitLimits,
    has_input: bool = False,
) -> Subprocess:
    """Start git under its limits. The caller must call `end`."""
    return Subprocess(
        ["/bin/sh", "-c", _LIMITED, "git", *limits.ulimits, *args],
        environment=environment,
        timeout=timeout,
        cwd=cwd,
        has_input=has_input,
    )


@contextmanager
def running_git(args: Sequence[str], *, timeout: float, **options: Unpack[GitOptions]) -> Iterator[Subprocess]:
    """Run git while the block reads its output. `timeout` is in seconds, for the block as a whole.

    Raises:
        SubprocessTimeoutError: the time was up.
        WorkCancelledError: `stop` was cancelled.
    """
    git_dir = options.get("git_dir")
    environment = clean_environment(
        options.get("config", ()),
        protocols=options.get("protocols", ()),
        extra={"GIT_DIR": str(git_dir)} if git_dir else {"GIT_CEILING_DIRECTORIES": str(NO_REPOSITORY.parent)},
    )
    environment |= options.get("extra_environment", {})
    process = start_git(
        args,
        environment=environment,
        cwd=git_dir or NO_REPOSITORY,
        timeout=timeout,
        limits=GitLimits(file_bytes=options.get("max_file_bytes")),
        has_input="data" in options,
    )
    with running(process, options.get("stop")) as started:
        if "data" in options:
            with suppress(BrokenPipeError):  # git has ended; its status says why
                started.stdin.write(options["data"])
                started.stdin.close()
        yield started


def run_git(
    args: Sequence[str],
    *,
    timeout: float,
    max_output_bytes: int = 16 * MEBIBYTE,
    **options: Unpack[GitOptions],
) -> GitResult:
    """Run git to its end. The caller judges the exit status.

    Raises:
        SubprocessTimeoutError: the time was up.
        WorkCancelledError: `stop` was cancelled.
    """
    with running_git(args, timeout=timeout, **options) as process:
        output = process.stdout.read(max_output_bytes + 1)
        is_cut = len(output) > max_output_bytes
        if is_cut:
            process.kill()
        return GitResult(process.wait(), output[:max_output_bytes], process.messages, is_cut)
