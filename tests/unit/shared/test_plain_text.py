"""Texts of strangers, and what is left of them for a terminal."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.plain_text import plain_line, plain_text

HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x1b[];?0m\\\x07\x9b\x9c\x9d\r\n\t\v\f\x00\x7f\x85\u2028\u202e\u200b\ufeff\U000e0041aB "),
        st.characters(),
    )
)
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07a", "a"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1;2|payload\x1b\\a", "a"),
        ("\x9b2Ja\x9d0;title\x9cb", "ab"),
        ("\x1bca\x1b(Bb\x1b7c", "abc"),
        ("\x1b]0;never ends", "\ufffd]0;never ends"),
        ("\x1b\x1b[31m[31mx", "\ufffd[31mx"),
        ("10 %\r20 %\r\ndone\n", "10 %\n20 %\ndone\n"),
        ("a\u2028b\x85c\vd", "a\nb\nc\nd"),
        ("evil\u202etxt.exe\u200b\ufeff", "eviltxt.exe"),
        ("\x00a\x7f\ud800", "\ufffda\ufffd\ufffd"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("grüße, 漢字, ✔️, הגדול", "grüße, 漢字, ✔️, הגדול"),
    ],
)
def test_a_text_keeps_what_is_shown_and_loses_what_controls(text: str, expected: str) -> None:
    assert plain_text(text) == expected


def test_a_line_has_no_break() -> None:
    assert plain_line("a\r\nb\tc\u2029d") == "a b c d"


def test_every_character_that_controls_or_hides_is_known() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {unicodedata.category(character) for character in plain_text(every).replace("\n", "").replace("\t", "")}
    assert not left & FORBIDDEN


@given(HOSTILE)
def test_no_character_that_controls_a_terminal_is_left(text: str) -> None:
    plain = plain_text(text)
    assert not {unicodedata.category(character) for character in plain if character not in "\n\t"} & FORBIDDEN
    assert plain_text(plain) == plain
    plain.encode()
    line = plain_line(text)
    assert not {unicodedata.category(character) for character in line} & FORBIDDEN
    assert line.splitlines() == ([line] if line else [])


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[0", "\x1bP", "\x1b ", "\r", "\x1b[" + "0" * 1000])
def test_a_long_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    # Were it quadratic, this would take hours.
    assert plain_text("a" + piece * (2_000_000 // len(piece))).startswith("a")
