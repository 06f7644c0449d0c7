"""Failures of pip are explained from the output of pip 23 and 24."""

import pytest

from shared.errors import ErrorClass
from workers.builds.environment.pip_errors import PipOutput
from workers.builds.environment.requirements import RequirementKind, RequirementLine, Requirements

LINES = ("six", "numpy==1.26.4", "broken-sdist", "nosuchpackage==9", "./vendor/broken")
WHEEL = "https://files.example.com/old-1.0-cp35-cp35m-linux_x86_64.whl"
REQUIREMENTS = Requirements(
    tuple(
        RequirementLine(RequirementKind.HOSTED, text, "requirements.txt", number, text.split("==")[0])
        for number, text in enumerate((*LINES, WHEEL), start=1)
    ),
    {"requirements.txt": b""},
)
CROSS = "\N{MULTIPLICATION SIGN}"
MISSING = [
    "Collecting six",
    "  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)",
    "ERROR: Could not find a version that satisfies the requirement nosuchpackage==9 (from versions: none)",
    "ERROR: No matching distribution found for nosuchpackage==9",
]


@pytest.mark.parametrize(
    ("lines", "exit_code", "error_class", "sentence"),
    [
        (MISSING, 1, ErrorClass.INVALID, "requirements.txt line 4: no matching distribution for nosuchpackage==9"),
        (
            [
                "Collecting deep (from numpy==1.26.4->-r requirements.txt (line 2))",
                "ERROR: Could not find a version that satisfies the requirement deep (from versions: none)",
                "ERROR: No matching distribution found for deep",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 2: no matching distribution for deep",
        ),
        (
            ["ERROR: Cannot install -r requirements.txt (line 1) and six==1 because …"],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 1: Cannot install -r requirements.txt (line 1) and six==1 because",
        ),
        (
            [
                "Collecting broken-sdist",
                "ERROR: Failed building wheel for broken-sdist",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 3: Failed building wheel for broken-sdist",
        ),
        (
            [
                "Processing ./vendor/broken",
                "  Preparing metadata (setup.py): started",
                "  error: subprocess-exited-with-error",
                f"  {CROSS} python setup.py egg_info did not run successfully.",
                "  │ exit code: 1",
                "  ╰─> [2 lines of output]",
                "      Traceback (most recent call last):",
                "      ModuleNotFoundError: No module named 'Cython'",
                "      [end of output]",
                "error: metadata-generation-failed",
                f"{CROSS} Encountered error while generating package metadata.",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 5: python setup.py egg_info did not run successfully. (ModuleNotFoundError: ",
        ),
        (["Collecting numpy==1.26.4"], 137, ErrorClass.INVALID, "requirements.txt line 2: the installation was killed"),
        (
            [
                "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/",
                *MISSING,
            ],
            1,
            ErrorClass.TRANSIENT,
            "requirements.txt line 4: the package index could not be reached: no matching",
        ),
        (
            ["WARNING: … SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] …", *MISSING],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 4: the certificate of the package index is not trusted",
        ),
        (
            [
                "Collecting numpy==1.26.4 (from -r requirements.txt (line 2))",
                "  Downloading numpy-1.26.4.zip (7.3 MB)",
                "  Installing build dependencies: finished with status 'done'",
                "ERROR: Exception:",
                "Traceback (most recent call last):",
                "    raise BackendUnavailable(",
                "hooks.BackendUnavailable: Cannot import 'setuptools.build_meta'",
            ],
            2,
            ErrorClass.INVALID,
            "requirements.txt line 2: pip failed: hooks.BackendUnavailable: Cannot import 'setuptools.build_meta'. "
            "There is no wheel of it for this Python",
        ),
        (
            [
                "Collecting six",
                "  Using cached six-1.17.0.tar.gz",
                "Collecting numpy==1.26.4",
                "  Downloading numpy-1.26.4-cp311-none-any.whl (7.3 MB)",
                "ERROR: Exception:",
                "OSError: something",
            ],
            2,
            ErrorClass.INVALID,
            "requirements.txt line 2: pip failed: OSError: something",
        ),
        (
            [
                "ERROR: Could not find a version that satisfies the requirement numpy==1.26.4 "
                "(from versions: 2.0, 2.1, 2.2, 2.3, 2.4)",
                "ERROR: No matching distribution found for numpy==1.26.4",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 2: no matching distribution for numpy==1.26.4. "
            "For this Python there are 2.0, 2.1, …, 2.3, 2.4: choose one of them, or an environment",
        ),
        (
            [
                "Collecting git+https://git.example.com/six",
                "  ERROR: Error [Errno 2] No such file or directory: 'git' while executing command git version",
                "ERROR: Cannot find command 'git' - do you have 'git' installed and in your PATH?",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt: the base image has no git, which reads this repository: name an archive in its place",
        ),
        (
            [
                "Collecting broken-sdist",
                "  Downloading broken-sdist-1.tar.gz (1 kB)",
                "      error: command 'gcc' failed: No such file or directory",
                "ERROR: Failed building wheel for broken-sdist",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 3: there is no wheel of it for this Python, and the base image has no compiler",
        ),
        (
            [
                "Collecting broken-sdist",
                "      error: command 'gcc' failed with exit code 1",
                "ERROR: Failed building wheel for broken-sdist",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 3: command 'gcc' failed with exit code 1",
        ),
        (
            [
                "Collecting broken-sdist",
                "  Downloading broken-sdist-1.tar.gz (1 kB)",
                "Collecting six",
                "  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)",
                f"  {CROSS} Running setup.py install for broken-sdist did not run successfully.",
                "      RequiredDependencyException: jpeg",
                "      [end of output]",
            ],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 3: Running setup.py install for broken-sdist did not run successfully. "
            "(RequiredDependencyException: jpeg). There is no wheel of it for this Python",
        ),
        (
            ["ERROR: old-1.0-cp35-cp35m-linux_x86_64.whl is not a supported wheel on this platform."],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 6: old-1.0-cp35-cp35m-linux_x86_64.whl is not a supported wheel on this platform. "
            "It is for another version of Python",
        ),
        (
            ["Collecting numpy==1.26.4", "      error: [Errno 2] No such file or directory: 'gcc'"],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 2: there is no wheel of it for this Python, and the base image has no compiler",
        ),
        (
            ["ERROR: Invalid requirement: 'numpy>=1.*' (from line 2 of requirements.txt)"],
            1,
            ErrorClass.INVALID,
            "requirements.txt line 2: Invalid requirement: 'numpy>=1.*'",
        ),
        ([], 1, ErrorClass.INVALID, "requirements.txt: pip failed without a message"),
    ],
)
def test_the_line_and_the_reason(lines: list[str], exit_code: int, error_class: ErrorClass, sentence: str) -> None:
    output = PipOutput(REQUIREMENTS, memory_bytes=1 << 30)
    for line in lines:
        output.read(line)
    error = output.failure(exit_code)
    assert error.error_class is error_class
    assert error.message.startswith(sentence)
    assert ("is no wheel" in error.message) == ("is no wheel" in sentence)
