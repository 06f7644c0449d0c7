import pytest

from shared.net.origins import host_of, is_redirect_allowed, is_target_allowed, origin_of

REMOTE, PLAIN, HERE = "https://r.example:443", "http://r.example:5000", "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://R.example/a?b", "https://r.example:443"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
        ("https://user@r.example/", None),
        ("ftp://r.example/", None),
        ("/relative", None),
        ("https://r.example:port/", None),
        ("https://[::1/", None),
        ("https://r.example\\@evil.example/", None),
        ("https://r.example/\r\nX: y", None),
    ],
)
def test_the_origin_of_a_url(url: str, expected: str | None) -> None:
    assert origin_of(url) == expected


@pytest.mark.parametrize(
    ("registry", "url", "allowed"),
    [
        (REMOTE, "https://auth.example/token", True),
        (REMOTE, "http://auth.example/token", False),
        (REMOTE, "http://r.example/token", False),
        (REMOTE, "https://127.0.0.1/token", False),
        (REMOTE, "https://localhost/token", False),
        (REMOTE, "https://169.254.0.1/latest", False),
        (REMOTE, "https://[::ffff:127.0.0.1]/", False),
        (REMOTE, "https://0.0.0.0/", False),
        (REMOTE, "not an address", False),
        (REMOTE, "", False),
        (PLAIN, "http://r.example:5001/token", True),
        (PLAIN, "http://auth.example/token", False),
        (PLAIN, "https://auth.example/token", True),
        (HERE, "http://127.0.0.1:9/token", True),
        (HERE, "http://localhost:9/token", True),
        (HERE, "http://auth.example/token", False),
        (HERE, "https://auth.example/token", True),
        (HERE, "https://169.254.0.1/latest", False),
    ],
)
def test_where_a_registry_may_redirect_to(registry: str, url: str, allowed: bool) -> None:
    assert is_redirect_allowed(registry, url) is allowed


@pytest.mark.parametrize(
    ("registry", "url", "allowed"),
    [
        (REMOTE, "https://r.example/token", True),
        (REMOTE, "https://r.example:5001/token", True),
        (REMOTE, "https://auth.example/token", True),
        (REMOTE, "http://r.example/token", False),
        (REMOTE, "http://r.example:443/token", False),
        (REMOTE, "https://127.0.0.1/token", False),
        (REMOTE, "", False),
        ("", "", False),
        (PLAIN, "http://r.example:5000/token", True),
        (PLAIN, "http://R.EXAMPLE:5000/token", True),
        (PLAIN, "http://r.example:5001/token", False),
        (PLAIN, "http://r.example/token", False),
        (PLAIN, "http://r.example.:5000/token", False),
        (PLAIN, "http://u@r.example:5000/token", False),
        (PLAIN, "https://r.example:5000/token", True),
        (HERE, "http://127.0.0.1:5000/token", True),
        (HERE, "http://127.0.0.1:9/token", False),
        (HERE, "http://localhost:5000/token", False),
        (HERE, "https://localhost:9/token", True),
        (HERE, "https://169.254.0.1/latest", False),
    ],
)
def test_credentials_and_layers_go_only_to_allowed_targets(registry: str, url: str, allowed: bool) -> None:
    assert is_target_allowed(registry, url) is allowed


def test_a_host_in_a_message_has_no_path_and_no_password() -> None:
    assert host_of("https://r.example:1/a?token=x") == "r.example:1"
    assert host_of("https://r.example:443/") == "r.example"
    assert host_of("http://[::1]:80/") == "[::1]"
    assert host_of("https://user:hunter2@r.example/") == "an invalid URL"
