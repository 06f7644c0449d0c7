"""Explain a failure of pip in one sentence that names the line of the requirements file to fix."""

import re
from collections import deque

from packaging.utils import canonicalize_name

from shared.errors import ErrorClass, WorkError
from workers.builds.environment.requirements import FILE, Requirements, describe_line

_FROM_LINE = re.compile(r"-r (\S+) \(line ([0-9]{1,9})\)|\(from line ([0-9]{1,9}) of (\S+)\)")
_ERROR = re.compile(r"^\s*ERROR: (.*)$", re.IGNORECASE)
_NO_MATCH = re.compile(r"No matching distribution found for (\S.*)$")
_DISTRIBUTION = re.compile(
    r"(?:distribution found for|satisfies the requirement|building wheel for|Failed to build|metadata for|"
    r"setup\.py install for) "
    r"([A-Za-z0-9][A-Za-z0-9._-]*)"
)
_FAILED_STEP = re.compile("^\\s*\N{MULTIPLICATION SIGN} (.*)$")
_PACKAGE = re.compile(r"^\s*(?:Collecting|Processing|Obtaining) ")
_COLLECTING = re.compile(r"^\s*Collecting ([A-Za-z0-9][A-Za-z0-9._-]*)")
_PROCESSING = re.compile(r"^\s*Processing (?:\./)?(\S+)")
_UNSUPPORTED_WHEEL = re.compile(r"^(\S+\.whl) is not a supported wheel")
_SOURCE_ARCHIVE = re.compile(r"^\s*(?:Downloading|Using cached) \S+\.(?:tar\.gz|zip|tar\.bz2)(?:\s|$)")
_CRASH = "Exception:"
"""Pip's error for an exception that it did not expect; a traceback follows."""
_OTHER_PYTHON = (
    "There is no wheel of it for this Python, so it is built from its source: choose another version of it, or an "
    "environment with a Python of its time (settings.algorithm_environment, such as python38)"
)
_OTHER_WHEEL = (
    "It is for another version of Python: name the wheel for this one, or choose an environment with its Python "
    "(settings.algorithm_environment; cp38 in its name stands for python38)"
)
_NOT_FOR_THIS_PYTHON = (
    "For this Python there are {versions}: choose one of them, or an environment with a Python of its time "
    "(settings.algorithm_environment, such as python38)"
)
_OTHER_IMAGE = "or have an operator choose a base image with {tool} (LONGSHORE_BASE_IMAGE, LONGSHORE_ENVIRONMENTS)"
_NO_REPOSITORY_TOOL = (
    "the base image has no {tool}, which reads this repository: name an archive in its place (on GitHub "
    f"https://github.com/OWNER/NAME/archive/REF.tar.gz), {_OTHER_IMAGE}"
)
_NO_COMPILER = (
    "there is no wheel of it for this Python, and the base image has no compiler to build it from its source: choose a "
    f"version that has a wheel, an environment with a Python of its time, {_OTHER_IMAGE.format(tool='a compiler')}"
)
_REPOSITORY_TOOL = re.compile(r"Cannot find command '(git|hg|svn|bzr)'")
_COMPILER_NAME = r"'(?:[a-z0-9_]+-linux-gnu-)?(?:gcc|g\+\+|cc|c\+\+|clang)'"
_COMPILER = re.compile(
    rf"{_COMPILER_NAME}(?: failed)?: No such file|No such file or directory: {_COMPILER_NAME}|"
    r"No CMAKE_C(?:XX)?_COMPILER could be found|Unknown compiler\(s\): "
)
_VERSIONS = re.compile(r"satisfies the requirement (\S.*?) \(from versions: ([^)]*)\)")
_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Temporary failure in name resolution|"
    r"Connection (?:refused|reset|aborted)|RemoteDisconnected|50[0234] Server Error|429 Client Error"
)
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed")
_MAX_ERRORS = 100
_KILLED = 137
"""Exit code of a process that the kernel killed, as a shell returns it (128 + SIGKILL)."""


class PipOutput:
    """Reads the output of one `pip install`, to explain its failure."""

    def __init__(self, requirements: Requirements, memory_bytes: int) -> None:
        self._requirements = requirements
        self._memory_bytes = memory_bytes
        self._errors: list[str] = []
        self._package_line = ""
        self._is_from_source = False
        self._built_from_source: set[str] = set()
        self._step = ""
        self._step_output = ""
        self._tail: deque[str] = deque(maxlen=20)
        self._network = False
        self._certificate = False
        self._missing_tool = ""

    def read(self, line: str) -> None:
        if line.strip() == "[end of output]":
            self._step_output = self._tail[-1] if self._tail else ""
        elif line.strip():
            self._tail.append(line.strip())
        if match := _ERROR.match(line):
            if len(self._errors) < _MAX_ERRORS:
                self._errors.append(match.group(1))
        elif match := _FAILED_STEP.match(line):
            self._step = self._step or match.group(1)
        elif _PACKAGE.match(line):
            self._package_line, self._is_from_source = line, False
        elif _SOURCE_ARCHIVE.match(line):
            self._is_from_source = True
            if match := _COLLECTING.match(self._package_line):
                self._built_from_source.add(canonicalize_name(match.group(1)))
        if match := _REPOSITORY_TOOL.search(line):
            self._missing_tool = _NO_REPOSITORY_TOOL.format(tool=match.group(1))
        elif _COMPILER.search(line):
            self._missing_tool = _NO_COMPILER
        self._network = self._network or bool(_NETWORK.search(line))
        self._certificate = self._certificate or bool(_CERTIFICATE.search(line))

    def failure(self, exit_code: int, index_failure: WorkError | None = None) -> WorkError:
        """Return the error for pip's exit code: transient if the index could not be reached, else invalid.

        `index_failure` says why a request to the package index failed, which pip does not always print.
        """
        where = self._line_description() or FILE
        if exit_code == _KILLED:
            return WorkError(
                ErrorClass.INVALID,
                f"{where}: the installation was killed, probably because it needs more than the limit of "
                f"{self._memory_bytes // (1024 * 1024)} MiB",
            )
        if index_failure is not None:
            message = index_failure.message[:1].lower() + index_failure.message[1:]
            return WorkError(index_failure.error_class, f"{where}: {message}")
        if self._certificate:
            return WorkError(
                ErrorClass.INVALID,
                f"{where}: the certificate of the package index is not trusted in builds "
                "(an operator can set LONGSHORE_BUILD_CA_BUNDLE)",
            )
        if self._network:
            return WorkError(ErrorClass.TRANSIENT, f"{where}: the package index could not be reached: {self._reason()}")
        if self._missing_tool:
            return WorkError(ErrorClass.INVALID, f"{where}: {self._missing_tool}")
        reason = self._reason()
        built = self._distribution()
        if self._is_from_source or (built and canonicalize_name(built) in self._built_from_source):
            reason = f"{reason.rstrip('.')}. {_OTHER_PYTHON}"
        return WorkError(ErrorClass.INVALID, f"{where}: {reason}")

    def _line_description(self) -> str | None:
        for text in [*self._errors, *self._tail, self._package_line]:
            if match := _FROM_LINE.search(text):
                return describe_line(match.group(1) or match.group(4), int(match.group(2) or match.group(3)))
            if (match := _UNSUPPORTED_WHEEL.match(text)) and (line := self._requirements.line_with(match.group(1))):
                return line
        distribution = self._distribution()
        if distribution and (line := self._requirements.line_of_distribution(distribution)):
            return line
        if match := _COLLECTING.match(self._package_line):
            return self._requirements.line_of_distribution(match.group(1))
        if match := _PROCESSING.match(self._package_line):
            return self._requirements.line_with(match.group(1))
        return None

    def _distribution(self) -> str | None:
        """Return the name of the distribution that the errors are about, if they say one."""
        for text in [*self._errors, self._step]:
            if match := _DISTRIBUTION.search(text):
                return match.group(1)
        return None

    def _reason(self) -> str:
        for text in self._errors:
            if _UNSUPPORTED_WHEEL.match(text):
                return f"{text.rstrip('.')}. {_OTHER_WHEEL}"
            if match := _NO_MATCH.search(text):
                return f"no matching distribution for {match.group(1)}{self._other_versions(match.group(1))}"
        if self._step:
            return f"{self._step} ({self._step_output})" if self._step_output else self._step
        if self._errors and self._errors[0] != _CRASH:
            return self._errors[0]
        return f"pip failed: {self._tail[-1]}" if self._tail else "pip failed without a message"

    def _other_versions(self, requirement: str) -> str:
        """Say which versions of a requirement there are for this Python, if there are any."""
        for text in self._errors:
            match = _VERSIONS.search(text)
            if match and match.group(1) == requirement and match.group(2) != "none":
                versions = match.group(2).split(", ")
                shown = versions if len(versions) < 5 else [*versions[:2], "…", *versions[-2:]]  # the oldest and newest
                return f". {_NOT_FOR_THIS_PYTHON.format(versions=', '.join(shown))}"
        return ""
