"""Failed connections, handshakes and reads as classified errors; `Retry-After`; excerpts of foreign texts."""

import http.client
import re
import ssl
from collections.abc import Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from shared.errors import ErrorClass, WorkError
from shared.numbers import whole_number
from shared.plain_text import plain_line

MAX_RETRY_AFTER_SECONDS = 3600.0
"""A longer `Retry-After` is shortened to this."""
_MAX_DATE_LENGTH = 64
_MAX_EXCERPT_LENGTH = 200
_NO_CERTIFICATE_CHAIN = {18, 19, 20, 21}
_EXPIRED = {9, 10}
_WRONG_HOST = {62, 64}
"""OpenSSL's codes for certificates that are not accepted (X509_V_ERR_…)."""
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: ([0-9]{3})")
"""The text in which http.client reports that a proxy refused CONNECT; there is no attribute for the status."""


def class_of_status(status: int) -> ErrorClass:
    if status in {401, 403}:
        return ErrorClass.AUTH
    if status == 429:
        return ErrorClass.THROTTLED
    if status >= 500 or status in {408, 425}:
        return ErrorClass.TRANSIENT
    return ErrorClass.NOT_FOUND if status == 404 else ErrorClass.INVALID


def error_from_exception(host: str, error: BaseException) -> WorkError:
    """Return the classified error of a failed connection, handshake or read (urllib3, http.client, ssl, socket)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return WorkError(ErrorClass.INVALID, _certificate_message(host, error))
    if isinstance(error, ssl.SSLError):
        return _tls_error(host, error)
    refusal = _TUNNEL_REFUSED.search(str(error))
    if refusal is not None:
        is_transient = class_of_status(int(refusal[1])) == ErrorClass.TRANSIENT
        return WorkError(
            ErrorClass.TRANSIENT if is_transient else ErrorClass.INVALID,
            f"The proxy for {host} refused the connection: {excerpt(str(error))}.",
        )
    if isinstance(error, http.client.HTTPException) and not isinstance(
        error, http.client.RemoteDisconnected | http.client.IncompleteRead
    ):
        return WorkError(ErrorClass.INVALID, f"{host} is not a container registry: it does not answer in HTTP.")
    return WorkError(ErrorClass.TRANSIENT, _connection_message(host, error))


def is_non_tls_peer(error: BaseException | None) -> bool:
    """Return whether a handshake failed in the way it fails with a peer that does not use TLS."""
    return isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError) and not isinstance(
        error, ssl.SSLCertVerificationError
    )


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date (RFC 9110 section 10.2.3); at most an hour."""
    seconds = whole_number(value)
    if seconds is not None:
        return min(float(seconds), MAX_RETRY_AFTER_SECONDS)
    if value is None or len(value) > _MAX_DATE_LENGTH:
        return None
    try:
        until = parsedate_to_datetime(value)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        delay = (until - (now or datetime.now(UTC))).total_seconds()
    except (ArithmeticError, LookupError, TypeError, ValueError):  # as in "1 Jan 2026 0:0 +99999999999999"
        return None
    return min(max(delay, 0.0), MAX_RETRY_AFTER_SECONDS)


def excerpt(text: str, secrets: Collection[str] = ()) -> str:
    """Return a text of a registry for use in a message: one line, shortened, without secrets and queries of URLs."""
    text = plain_line(text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(https?://)[^\s/\"'@]*@", r"\1***@", text)
    text = re.sub(r"https?://[^\s\"']*", lambda url: url[0].partition("?")[0], text)
    line = " ".join(text.split())
    return line if len(line) <= _MAX_EXCERPT_LENGTH else line[: _MAX_EXCERPT_LENGTH - 1] + "…"


def _certificate_message(host: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _NO_CERTIFICATE_CHAIN:
        return (
            f"The certificate of {host} is signed by an authority that is not trusted here: "
            "give that authority as ca_certificate, or set verify_tls to false."
        )
    if error.verify_code in _EXPIRED:
        return f"The certificate of {host} has expired or is not valid yet: renew it, or set verify_tls to false."
    if error.verify_code in _WRONG_HOST:
        return (
            f"The certificate of {host} is for another host: use the name that it is for, or set verify_tls to false."
        )
    reason = excerpt(error.verify_message or "it does not verify")
    return f"The certificate of {host} is not accepted ({reason}): give ca_certificate, or set verify_tls to false."


def _tls_error(host: str, error: ssl.SSLError) -> WorkError:
    reason = getattr(error, "reason", None) or ""
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}:
        return WorkError(
            ErrorClass.INVALID,
            f"{host} does not use TLS: if it is a registry that uses plain HTTP, write http:// in front of it.",
        )
    if "ALERT" in reason or "PROTOCOL" in reason:
        description = excerpt(reason.replace("_", " ").lower())
        return WorkError(
            ErrorClass.INVALID, f"{host} and this client cannot agree on a TLS connection ({description})."
        )
    return WorkError(ErrorClass.TRANSIENT, f"{host} closed the TLS connection unexpectedly.")


def _connection_message(host: str, error: BaseException) -> str:
    if isinstance(error, NameResolutionError):
        return f"The name {host} cannot be resolved: check the registry's host, or the name server."
    # The order matters: in urllib3 a failed connection attempt is a kind of timeout too.
    if isinstance(error, NewConnectionError | ConnectionRefusedError):
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"
        return f"{host} cannot be reached: {reason.lower()}."
    if isinstance(error, HTTPTimeoutError | TimeoutError):
        return f"{host} did not answer in time."
    return f"{host} closed the connection unexpectedly."
