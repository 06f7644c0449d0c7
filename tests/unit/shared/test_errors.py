"""Messages that can be stored and expected."""

import pytest

from shared.errors import sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the engine is away", "The engine is away."),
        ("requirements.txt line 3: no requirement", "requirements.txt line 3: no requirement."),
        ("127.0.0.1:5000 answered 401", "127.0.0.1:5000 answered 401."),
        ("Done!", "Done!"),
        ("", "."),
    ],
)
def test_a_sentence_has_a_capital_and_an_end(text: str, expected: str) -> None:
    assert sentence(text) == expected
