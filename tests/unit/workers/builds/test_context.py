"""The log of a build has a limit, and no secrets."""

import pytest

from workers.builds.context import BuildLog, lines_of, url_secrets, without_credentials


def test_a_log_that_grows_too_long_is_cut_and_says_so_once() -> None:
    lines: list[str] = []
    log = BuildLog(lines.append, limit=20)
    for number in range(10):
        log(f"line {number}")
    log.add_failure("why it failed")
    assert lines == [
        "line 0",
        "line 1",
        "(the log is longer than 20 bytes; the rest of it was dropped)",
        "why it failed",
    ]


def test_secrets_are_masked_encoded_and_decoded() -> None:
    lines: list[str] = []
    log = BuildLog(lines.append, 1000, url_secrets("https://user:p%40ss@index.example.com/simple"))
    log("Looking in https://user:p%40ss@index.example.com/simple with p@ss or p%40ss")
    log.add_failure("p@ss")
    assert lines == ["Looking in https://****@index.example.com/simple with **** or ****", "****"]


@pytest.mark.parametrize(
    ("url", "bare", "secrets"),
    [
        ("https://index.example.com/simple", "https://index.example.com/simple", []),
        ("https://token@h:8443/s?q=1", "https://h:8443/s?q=1", ["token", "token", "token"]),
        ("http://u:p@[::1]:80/", "http://[::1]:80/", ["u:p", "p", "p"]),
    ],
)
def test_the_credentials_of_a_url(url: str, bare: str, secrets: list[str]) -> None:
    assert (without_credentials(url), url_secrets(url)) == (bare, secrets)


def test_chunks_become_lines() -> None:
    text = "é one\r\ntwo\rthree\n\nlast".encode()
    assert list(lines_of(text[index : index + 1] for index in range(len(text)))) == [
        "é one",
        "two",
        "three",
        "",
        "last",
    ]
    assert list(lines_of([b"\xff\n"])) == ["\N{REPLACEMENT CHARACTER}"]
    assert [len(piece) for piece in lines_of([b"x" * 70_000, b"y" * 10])] == [70_000, 10]
