"""Failed connections, handshakes and reads as errors with a class, and how long a peer asked us to wait."""

import http.client
import re
import ssl
import unicodedata
from collections.abc import Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from shared.errors import ErrorClass, WorkError

MAX_RETRY_AFTER = 3600.0
"""Seconds; a registry that names a longer wait is asked again after this one."""
_EXCERPT_LENGTH = 200
_NO_CERTIFICATE_CHAIN = {18, 19, 20, 21}
_EXPIRED = {9, 10}
_WRONG_HOST = {62, 64}
"""What OpenSSL calls the ways in which a certificate is not accepted (X509_V_ERR_…)."""
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")
"""http.client tells a proxy's refusal of CONNECT in these words only."""
_BROKEN_OFF = http.client.RemoteDisconnected | http.client.IncompleteRead


def class_of_status(status: int) -> ErrorClass:
    """Return the error class of an HTTP status."""
    if status in {401, 403}:
        return ErrorClass.AUTH
    if status == 429:
        return ErrorClass.THROTTLED
    if status >= 500 or status in {408, 425}:
        return ErrorClass.TRANSIENT
    return ErrorClass.NOT_FOUND if status == 404 else ErrorClass.INVALID


def error_from_exception(host: str, error: BaseException) -> WorkError:
    """The error that a failed connection, handshake or read means (urllib3, http.client, ssl and socket errors)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return WorkError(ErrorClass.INVALID, _certificate_sentence(host, error))
    if isinstance(error, ssl.SSLError):
        return _tls_failure(host, error)
    if isinstance(error, http.client.HTTPException) and not isinstance(error, _BROKEN_OFF):
        return WorkError(ErrorClass.INVALID, f"{host} is no container registry: it does not answer in HTTP.")
    refused = _TUNNEL_REFUSED.search(str(error))
    for_good = refused is not None and class_of_status(int(refused[1])) != ErrorClass.TRANSIENT
    return WorkError(ErrorClass.INVALID if for_good else ErrorClass.TRANSIENT, _what_broke(host, error))


def speaks_no_tls(error: BaseException | None) -> bool:
    """Whether a handshake failed as it does where the other side speaks something else than TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` names, as a number or a date (RFC 9110 section 10.2.3); at most an hour."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max((until - (now or datetime.now(UTC))).total_seconds(), 0.0), MAX_RETRY_AFTER)


def excerpt(text: str, secrets: Collection[str] = ()) -> str:
    """A registry's own words, fit for a message: one line, bounded, without secrets and without URLs' queries."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(https?://)[^\s/\"'@]*@", r"\1***@", text)
    text = re.sub(r"(https?://[^\s\"'?]*)\?[^\s\"']*", r"\1", text)
    visible = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    line = " ".join(visible.split())
    return line if len(line) <= _EXCERPT_LENGTH else line[: _EXCERPT_LENGTH - 1] + "…"


def _certificate_sentence(host: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _NO_CERTIFICATE_CHAIN:
        return (
            f"The certificate of {host} is signed by nobody that is trusted here: "
            "give its authority as ca_certificate, or set verify_tls to false."
        )
    if error.verify_code in _EXPIRED:
        return f"The certificate of {host} has expired or is not valid yet: renew it, or set verify_tls to false."
    if error.verify_code in _WRONG_HOST:
        return (
            f"The certificate of {host} is for another host: use the name that it is for, or set verify_tls to false."
        )
    reason = excerpt(error.verify_message or "it does not verify")
    return f"The certificate of {host} is not accepted ({reason}): give ca_certificate, or set verify_tls to false."


def _tls_failure(host: str, error: ssl.SSLError) -> WorkError:
    reason = getattr(error, "reason", None) or ""
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}:
        return WorkError(
            ErrorClass.INVALID,
            f"{host} does not speak TLS: if it is a registry that speaks plain HTTP, write http:// in front of it.",
        )
    if "ALERT" in reason or "PROTOCOL" in reason:
        words = excerpt(reason.replace("_", " ").lower())
        return WorkError(ErrorClass.INVALID, f"{host} and this client agree on no TLS connection ({words}).")
    return WorkError(ErrorClass.TRANSIENT, f"{host} broke the TLS connection off.")


def _what_broke(host: str, error: BaseException) -> str:
    if _TUNNEL_REFUSED.search(str(error)):
        return f"The proxy on the way to {host} refused: {excerpt(str(error))}."
    if isinstance(error, NameResolutionError):
        return f"The name {host} cannot be resolved: check the registry's host, or the name server."
    # In urllib3 whatever kept a connection from being made is a kind of timeout too: this order.
    if isinstance(error, NewConnectionError | ConnectionRefusedError):
        return f"{host} cannot be reached: {_system_text(error)}."
    if isinstance(error, HTTPTimeoutError | TimeoutError):
        return f"{host} did not answer in time."
    return f"{host} broke the connection off."


def _system_text(error: BaseException) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__
    return (cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection").lower()
