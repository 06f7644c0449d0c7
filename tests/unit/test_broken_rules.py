from pathlib import Path

import pytest

from tests.broken_rules import SOURCE, VIOLATIONS, Violation


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda violation: violation.what)
def test_the_text_of_each_violation_is_in_its_file(violation: Violation) -> None:
    """`make broken-rules` is not part of `make test`, so a change of the source must not break it unnoticed."""
    assert violation.text in (SOURCE / violation.file).read_text()
    assert all(Path(SOURCE / tests).exists() for tests in violation.tests.split())
