"""Explain a failure of pip in one sentence that names the line of the requirements file to fix."""

import re
from collections import deque

from shared.errors import ErrorClass, WorkError
from workers.builds.environment.requirements import FILE, Requirements, describe_line

_FROM_LINE = re.compile(r"-r (\S+) \(line ([0-9]{1,9})\)")
_ERROR = re.compile(r"^\s*ERROR: (.*)$", re.IGNORECASE)
_NO_MATCH = re.compile(r"No matching distribution found for (\S.*)$")
_DISTRIBUTION = re.compile(
    r"(?:distribution found for|satisfies the requirement|building wheel for|Failed to build|metadata for) "
    r"([A-Za-z0-9][A-Za-z0-9._-]*)"
)
_FAILED_STEP = re.compile("^\\s*\N{MULTIPLICATION SIGN} (.*)$")
_PACKAGE = re.compile(r"^\s*(?:Collecting|Processing|Obtaining) ")
_COLLECTING = re.compile(r"^\s*Collecting ([A-Za-z0-9][A-Za-z0-9._-]*)")
_PROCESSING = re.compile(r"^\s*Processing (?:\./)?(\S+)")
_SOURCE_ARCHIVE = re.compile(r"^\s*(?:Downloading|Using cached) \S+\.(?:tar\.gz|zip|tar\.bz2)(?:\s|$)")
_CRASH = "Exception:"
"""Pip's error for an exception that it did not expect; a traceback follows."""
_OTHER_PYTHON = (
    "There is no wheel of it for this Python, so it is built from its source: choose another version of it, or an "
    "environment with a Python of its time (settings.algorithm_environment)"
)
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
        self._step = ""
        self._step_output = ""
        self._tail: deque[str] = deque(maxlen=20)
        self._network = False
        self._certificate = False

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
        reason = self._reason()
        if self._is_from_source:
            reason = f"{reason.rstrip('.')}. {_OTHER_PYTHON}"
        return WorkError(ErrorClass.INVALID, f"{where}: {reason}")

    def _line_description(self) -> str | None:
        for text in [*self._errors, *self._tail, self._package_line]:
            if match := _FROM_LINE.search(text):
                return describe_line(match.group(1), int(match.group(2)))
        for text in self._errors:
            if match := _DISTRIBUTION.search(text):
                line = self._requirements.line_of_distribution(match.group(1))
                if line:
                    return line
        if match := _COLLECTING.match(self._package_line):
            return self._requirements.line_of_distribution(match.group(1))
        if match := _PROCESSING.match(self._package_line):
            return self._requirements.line_with(match.group(1))
        return None

    def _reason(self) -> str:
        for text in self._errors:
            if match := _NO_MATCH.search(text):
                return f"no matching distribution for {match.group(1)}"
        if self._step:
            return f"{self._step} ({self._step_output})" if self._step_output else self._step
        if self._errors and self._errors[0] != _CRASH:
            return self._errors[0]
        return f"pip failed: {self._tail[-1]}" if self._tail else "pip failed without a message"
