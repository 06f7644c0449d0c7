import pytest

from shared.errors import ErrorClass
from shared.git.errors import git_error
from shared.git.repository_url import RepositoryUrl

URL = RepositoryUrl.parse("https://example.org/o/r.git")


@pytest.mark.parametrize(
    ("errors", "error_class"),
    [
        ("fatal: could not read Username for 'https://example.org': terminal prompts disabled", ErrorClass.AUTH),
        (
            "git@example.org: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            ErrorClass.AUTH,
        ),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", ErrorClass.INVALID),
        ("fatal: unable to access 'x': The requested URL returned error: 429", ErrorClass.THROTTLED),
        ("fatal: unable to access 'x': The requested URL returned error: 502", ErrorClass.TRANSIENT),
        ("fatal: unable to access 'x': The requested URL returned error: 301", ErrorClass.INVALID),
        ("fatal: unable to access 'x': server certificate verification failed. CAfile: none", ErrorClass.INVALID),
        ("fatal: unable to access 'x': SSL certificate problem: self-signed certificate", ErrorClass.INVALID),
        (
            "fatal: unable to access 'x': SSL: certificate subject name (other.org) does not match target host name",
            ErrorClass.INVALID,
        ),
        ("fatal: unable to access 'x': Could not resolve host: example.org", ErrorClass.TRANSIENT),
        ("fatal: write error: No space left on device", ErrorClass.UNAVAILABLE),
        ("fatal: fsck error in packed object", ErrorClass.INVALID),
        ("something that nobody foresaw", ErrorClass.TRANSIENT),
        ("", ErrorClass.TRANSIENT),
    ],
)
def test_the_class_follows_from_what_git_says(errors: str, error_class: ErrorClass) -> None:
    failed = git_error(errors, URL)
    assert failed.error_class == error_class
    assert failed.message.endswith(".") or failed.message.endswith(").")


def test_what_the_other_side_says_decides_nothing_and_is_not_repeated() -> None:
    failed = git_error("remote: No space left on device <b>\nfatal: early EOF\x1b[31m", URL)
    assert failed.error_class == ErrorClass.TRANSIENT
    assert "<b>" not in failed.message
    assert "\x1b" not in failed.message
    assert "early EOF" in failed.message
