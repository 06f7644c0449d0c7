import pytest

from shared.errors import ErrorClass
from workers.docker.errors import classify_message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unauthorized: authentication required", ErrorClass.AUTH),
        ("denied", ErrorClass.AUTH),
        ("denied: requested access to the resource is denied", ErrorClass.AUTH),
        ("no basic auth credentials", ErrorClass.AUTH),
        ("unauthorized: incorrect username or password", ErrorClass.AUTH),
        (
            "push access denied, repository does not exist or may require authorization: insufficient_scope",
            ErrorClass.AUTH,
        ),
        ("error parsing HTTP 403 response body: invalid character '<': \"<html>x</html>\"", ErrorClass.AUTH),
        ("unexpected status from GET request to https://r.example/token?a=1: 401 Unauthorized", ErrorClass.AUTH),
        ("unexpected status code 403 Forbidden", ErrorClass.AUTH),
        ("name unknown", ErrorClass.NOT_FOUND),
        ("name unknown: The repository with name 'a/b' does not exist", ErrorClass.NOT_FOUND),
        ("manifest unknown: manifest unknown", ErrorClass.NOT_FOUND),
        ('error parsing HTTP 404 response body: invalid character: "<html>"', ErrorClass.NOT_FOUND),
        ("An image does not exist locally with the tag: r.example/a/denied", ErrorClass.NOT_FOUND),
        ("tag does not exist: r.example/a/b:1", ErrorClass.NOT_FOUND),
        ("manifest invalid: manifest invalid", ErrorClass.INVALID),
        ('error parsing HTTP 413 response body: invalid character: "<html>"', ErrorClass.INVALID),
        ("received unexpected HTTP status: 200 OK", ErrorClass.INVALID),
        ('Get "https://r.example/v2/": x509: certificate signed by unknown authority', ErrorClass.INVALID),
        ("tls: failed to verify certificate: x509: certificate has expired", ErrorClass.INVALID),
        ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', ErrorClass.INVALID),
        ("invalid reference format: repository name must be lowercase", ErrorClass.INVALID),
        ("toomanyrequests: You have reached your pull rate limit", ErrorClass.THROTTLED),
        ("received unexpected HTTP status: 429 Too Many Requests", ErrorClass.THROTTLED),
        ("blob upload unknown", ErrorClass.TRANSIENT),
        ("manifest blob unknown: blob unknown to registry", ErrorClass.TRANSIENT),
        ("received unexpected HTTP status: 502 Bad Gateway", ErrorClass.TRANSIENT),
        ("received unexpected HTTP status: 500 Internal Server Error", ErrorClass.TRANSIENT),
        ('Get "https://r.example/v2/": EOF', ErrorClass.TRANSIENT),
        ('Head "https://r.example/v2/denied/unauthorized/blobs/sha256:1": EOF', ErrorClass.TRANSIENT),
        ("read tcp 10.0.0.1:1->10.0.0.2:443: read: connection reset by peer", ErrorClass.TRANSIENT),
        ("dial tcp 10.0.0.2:443: i/o timeout", ErrorClass.TRANSIENT),
        ("dial tcp: lookup r.example: no such host", ErrorClass.TRANSIENT),
        ("dial tcp 127.0.0.1:1: connect: connection refused", ErrorClass.TRANSIENT),
        ("net/http: TLS handshake timeout", ErrorClass.TRANSIENT),
        ("something that nobody has seen before", ErrorClass.TRANSIENT),
        ("Cannot connect to the Docker daemon at unix:///run/d.sock. Is it running?", ErrorClass.UNAVAILABLE),
        ("Got permission denied while trying to connect to the Docker daemon socket", ErrorClass.UNAVAILABLE),
        ("dial unix /run/d.sock: connect: connection refused", ErrorClass.UNAVAILABLE),
        ("client version 1.50 is too new. Maximum supported API version is 1.41", ErrorClass.UNAVAILABLE),
        ("client is newer than server", ErrorClass.UNAVAILABLE),
        ("write /var/lib/x: no space left on device", ErrorClass.UNAVAILABLE),
    ],
)
def test_the_class_of_what_an_engine_says(text: str, expected: ErrorClass) -> None:
    assert classify_message(text).error_class is expected


def test_the_sentence_names_the_registry_and_keeps_secrets() -> None:
    error = classify_message("denied: hunter2 was refused\n\x1b[1m", host="r.example", secrets=["hunter2"])
    assert error.message.startswith("r.example: denied: *** was refused. Check the username")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("toomanyrequests: retry-after: 1.5s, allowed: 44000/minute", 1.5),
        ("toomanyrequests: retry-after: 250ms", 0.25),
        ("toomanyrequests: retry-after: 90000", 3600.0),
        ("toomanyrequests", None),
    ],
)
def test_a_wait_that_the_registry_names(text: str, seconds: float | None) -> None:
    assert classify_message(text).retry_after == seconds
