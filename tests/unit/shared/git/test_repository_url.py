import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.git.repository_url import InvalidRepositoryUrlError, RepositoryUrl


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("https://github.com/o/r.git", "https://github.com/o/r.git"),
        ("HTTPS://GitHub.com/o/R/", "https://github.com/o/R"),
        ("https://git.example.org:8443/~user/r+s@v1,2.git", "https://git.example.org:8443/~user/r+s@v1,2.git"),
        ("https://dev.example.org/My%20Project/_git/r", "https://dev.example.org/My%20Project/_git/r"),
        ("https://[::1]:8443/r", "https://[::1]:8443/r"),
        ("ssh://git@host.example/o/r", "ssh://git@host.example/o/r"),
        ("ssh://host.example:2222/r", "ssh://host.example:2222/r"),
        ("git@github.com:o/r.git", "ssh://git@github.com/o/r.git"),
        ("github.com:/srv/r.git", "ssh://github.com/srv/r.git"),
    ],
)
def test_addresses_have_one_spelling(text: str, spelled: str) -> None:
    url = RepositoryUrl.parse(text)
    assert str(url) == spelled
    assert RepositoryUrl.parse(spelled) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc",
        "../r",
        "-oProxyCommand=x",
        "--upload-pack=touch /tmp/x",
        "--upload-pack=x:y",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ext::sh -c id",
        "ext::id",
        "fd::17",
        "git://example.org/r",
        "ftp://example.org/r",
        "http://example.org/r",
        "https::https://example.org/r",
        "https://",
        "https:///r",
        "https://example.org",
        "https://example.org/",
        "https://user:password@example.org/r",
        "https://token@example.org/r",
        "https://@example.org/r",
        "ssh://git:password@example.org/r",
        "ssh://-oProxyCommand=x/r",
        "ssh://-l@example.org/r",
        "ssh://@example.org/r",
        "-l@example.org:r",
        "git@-oProxyCommand=x:r",
        "git@example.org:-r",
        "https://-example.org/r",
        "https://exa_mple..org/r",
        "https://example.org:0/r",
        "https://example.org:65536/r",
        "https://example.org:/r",
        "https://example.org:8 0/r",
        "https://example.org:²/r",
        "https://[::1/r",
        "https://[::1]x/r",
        "https://example.org/r?x=y",
        "https://example.org/r#x",
        "https://example.org/a/../b",
        "https://example.org/./b",
        "https://example.org//b",
        "https://example.org/-b",
        "https://example.org/a b",
        "https://example.org/a\tb",
        "https://example.org/a\nb",
        "https://example.org/a\x00b",
        "https://example.org/a\x7fb",
        "https://exämple.org/r",
        "https://example.org/a\\b",
        'https://example.org/a"b',
        "https://example.org/%2e%2e/b",
        "https://example.org/a%2fb",
        "https://example.org/a%5Cb",
        "https://example.org/a%00b",
        "https://example.org/a%0ab",
        "https://example.org/a%252e",
        "https://example.org/a%3fb",
        "https://example.org/a%2",
        "https://example.org/a%",
        "https://example.org/a%zz",
        "https://example%2eorg/r",
        "ssh://git@example.org/a%20b",
        "https://example.org/" + "a" * 512,
    ],
)
def test_everything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidRepositoryUrlError) as refused:
        RepositoryUrl.parse(text)
    assert str(refused.value).endswith((".", ")"))
    assert "password@" not in str(refused.value)


def test_http_and_ssh_are_what_the_settings_allow() -> None:
    assert RepositoryUrl.parse("http://example.org/r", allow_http=True).scheme == "http"
    with pytest.raises(InvalidRepositoryUrlError, match="LONGSHORE_SOURCE_ALLOW_HTTP"):
        RepositoryUrl.parse("http://example.org/r")
    for text in ("ssh://git@example.org/r", "git@example.org:r"):
        with pytest.raises(InvalidRepositoryUrlError, match="LONGSHORE_SOURCE_SSH_KNOWN_HOSTS"):
            RepositoryUrl.parse(text, allow_ssh=False)


@given(st.text(alphabet="htps:/@-.%2eaext[]\\ ?#~", max_size=40))
def test_what_is_taken_can_be_no_option_and_no_other_transport(text: str) -> None:
    try:
        spelled = str(RepositoryUrl.parse(text, allow_http=True))
    except InvalidRepositoryUrlError:
        return
    assert spelled.startswith(("https://", "http://", "ssh://"))
    assert "::" not in spelled.partition("]")[2]
    assert "/-" not in spelled
    assert "//" not in spelled.partition("://")[2]
    assert ".." not in spelled
