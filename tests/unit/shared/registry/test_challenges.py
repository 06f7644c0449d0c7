import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.registry.authentication import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a.example/token",service="r",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a.example/token", "service": "r", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            'Negotiate, BASIC Realm="a \\"b\\"" , Bearer realm=plain, service = "s, t"',
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": 'a "b"'}),
                Challenge("bearer", {"realm": "plain", "service": "s, t"}),
            ],
        ),
        ('Basic realm="never closed', [Challenge("basic", {"realm": ""})]),
        ("realm=x", []),
    ],
)
def test_a_header_is_parsed(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges(header) == expected


@given(st.text(max_size=200))
def test_any_header_can_be_parsed(header: str) -> None:
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in parse_challenges(header))
