import socket
import ssl
from datetime import UTC, datetime
from ssl import SSLCertVerificationError, SSLEOFError

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NameResolutionError

from shared.errors import ErrorClass
from shared.net.errors import MAX_RETRY_AFTER_SECONDS, error_from_exception, excerpt, retry_after
from shared.net.responses import Response
from shared.registry.errors import error_from_response

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


def response(status: int, body: bytes = b"", **headers: str) -> Response:
    return Response(
        "GET", "https://r.example:443/v2/", status, {k.replace("_", "-"): v for k, v in headers.items()}, body
    )


def of_code(code: str) -> bytes:
    return f'{{"errors": [{{"code": "{code}", "message": "said so"}}]}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b"", ErrorClass.AUTH),
        (403, of_code("DENIED"), ErrorClass.AUTH),
        (400, of_code("UNAUTHORIZED"), ErrorClass.AUTH),
        (404, of_code("NAME_UNKNOWN"), ErrorClass.NOT_FOUND),
        (404, b"", ErrorClass.NOT_FOUND),
        (404, of_code("BLOB_UPLOAD_UNKNOWN"), ErrorClass.TRANSIENT),
        (400, of_code("MANIFEST_BLOB_UNKNOWN"), ErrorClass.TRANSIENT),
        (400, of_code("MANIFEST_INVALID"), ErrorClass.INVALID),
        (400, b"[not json", ErrorClass.INVALID),
        (413, b"<html>too large</html>", ErrorClass.INVALID),
        (302, b"", ErrorClass.INVALID),
        (429, b"", ErrorClass.THROTTLED),
        (408, b"", ErrorClass.TRANSIENT),
        (500, of_code("DENIED"), ErrorClass.TRANSIENT),
        (503, b"", ErrorClass.TRANSIENT),
        (400, b'{"errors": ["odd"]}', ErrorClass.INVALID),
        (400, b'{"errors": {"odd": 1}}', ErrorClass.INVALID),
    ],
)
def test_the_class_of_a_response(status: int, body: bytes, expected: ErrorClass) -> None:
    failure = error_from_response("r.example", response(status, body), "pushing to a/b")
    assert failure.error_class is expected
    assert failure.message.startswith(f"r.example answered {status}")
    assert "pushing to a/b" in failure.message


def test_the_message_repeats_the_registry_without_secrets_and_control_characters() -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "no\\u001b[31m\\n hunter2 at https://r.example/x?_state=abc"}]}'
    message = error_from_response("r.example", response(403, body), "pushing", secrets={"hunter2"}).message
    assert "DENIED, no *** at https://r.example/x" in message
    assert "hunter2" not in message
    assert "_state" not in message


def test_an_excerpt_is_short_and_one_line() -> None:
    assert len(excerpt("x" * 5000)) == 200
    assert excerpt("a\r\n\u202eb\x00c\u2028d") == "a b\ufffdc d"
    assert excerpt("https://user:hunter2@r.example/") == "https://***@r.example/"


def test_without_credentials_the_advice_is_to_give_some() -> None:
    failure = error_from_response("r.example", response(401), "pushing", with_credentials=False)
    assert "Give it a username and a password" in failure.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("999999", MAX_RETRY_AFTER_SECONDS),
        ("99999999999999999999", None),
        ("-5", None),
        ("soon", None),
        ("Tue, 01 Jan 2030 12:02:00 GMT", 120.0),
        ("Tue, 01 Jan 2030 11:00:00 GMT", 0.0),
        ("Tue, 01 Jan 2031 12:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("Tue, 01 Jan 2030 12:02:00 -0000", 120.0),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after(value, NOW) == expected


def test_the_error_has_the_retry_after() -> None:
    assert error_from_response("r.example", response(429, Retry_After="7"), "pushing").retry_after == 7.0


def certificate_error(code: int) -> SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "because"
    return error


def unresolved() -> NameResolutionError:
    return NameResolutionError("r.example", HTTPConnection("r.example"), socket.gaierror(-2, "Name not known"))


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (certificate_error(20), ErrorClass.INVALID, "ca_certificate"),
        (certificate_error(10), ErrorClass.INVALID, "expired"),
        (certificate_error(62), ErrorClass.INVALID, "another host"),
        (certificate_error(99), ErrorClass.INVALID, "because"),
        (ssl.SSLEOFError(8, "EOF"), ErrorClass.TRANSIENT, "closed"),
        (TimeoutError(), ErrorClass.TRANSIENT, "in time"),
        (ConnectionResetError(104, "reset"), ErrorClass.TRANSIENT, "closed"),
        (ConnectionRefusedError(111, "Connection refused"), ErrorClass.TRANSIENT, "connection refused"),
        (unresolved(), ErrorClass.TRANSIENT, "cannot be resolved"),
    ],
)
def test_the_class_of_a_broken_connection(
    error: SSLEOFError | TimeoutError | ConnectionResetError | ConnectionRefusedError, expected: ErrorClass, words: str
) -> None:
    failure = error_from_exception("r.example", error)
    assert failure.error_class is expected
    assert words in failure.message
    assert "r.example" in failure.message
