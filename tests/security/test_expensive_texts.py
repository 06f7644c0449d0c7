"""Attacks on a worker's processor with texts of a megabyte, which would take hours to read in quadratic time."""

import io

import pytest

from shared.errors import ErrorClass, WorkError
from shared.net.errors import excerpt
from tests.unit.workers.builds.sources import archive_of
from workers.builds.environment.pip_errors import PipOutput
from workers.builds.environment.requirements import (
    MAX_BYTES,
    MAX_LINE_LENGTH,
    NO_REQUIREMENTS,
    RequirementLine,
    read_requirements,
)
from workers.builds.source_tree import open_source_tree
from workers.docker.errors import classify_message


@pytest.mark.parametrize(
    "piece",
    [" ", "[", "\t#a", "-i a ", "a;", "./[", "./a ;", "a[b]", "\\\n", "-r x\n", "${A} ", "a@", "'", "git+", "#egg="],
)
@pytest.mark.parametrize("start", ["./a", "-i "])
@pytest.mark.parametrize("length", [MAX_LINE_LENGTH - 10, MAX_BYTES - 10])
def test_a_requirements_file_does_not_hold_a_worker(start: str, piece: str, length: int) -> None:
    found = lines_or_error(start + piece * (length // len(piece)) + "b")
    if isinstance(found, WorkError):
        assert found.error_class == ErrorClass.INVALID
        assert found.message.startswith(("requirements.txt line 1: ", "requirements.txt line 2: "))
    else:
        assert [(line.file, line.number) for line in found] == [("requirements.txt", 1)]
        assert len(found[0].text) <= MAX_LINE_LENGTH + len("--index-url")


def lines_or_error(text: str) -> tuple[RequirementLine, ...] | WorkError:
    with open_source_tree(io.BytesIO(archive_of({"requirements.txt": text.encode()}))) as tree:
        try:
            return read_requirements(tree).lines
        except WorkError as error:
            return error


@pytest.mark.parametrize("piece", ["repository ", "http status: ", "retry-after: ", "https://", "a", " "])
def test_an_engines_message_does_not_hold_a_worker(piece: str) -> None:
    assert classify_message(piece * (1_000_000 // len(piece))).message


@pytest.mark.parametrize("piece", ["https://", "http://a@", "https://a?b", "\x1b]", "a ", "\u202e"])
def test_a_registrys_message_does_not_hold_a_worker(piece: str) -> None:
    assert len(excerpt(piece * (1_000_000 // len(piece)), ["secret"])) <= 200


def test_a_setup_script_does_not_break_the_explanation_of_its_failure() -> None:
    output = PipOutput(NO_REQUIREMENTS, 2**30)
    for _ in range(10_000):
        output.read("ERROR: No matching distribution found for x (from -r requirements.txt (line " + "9" * 5000 + "))")
    assert output.failure(1).error_class == ErrorClass.INVALID
