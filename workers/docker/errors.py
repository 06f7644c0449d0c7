"""Classify the error messages of the Docker engine, from its own failures and from registries."""

import re
from collections.abc import Collection

from shared.errors import ErrorClass, WorkError
from shared.net.errors import MAX_RETRY_AFTER_SECONDS, class_of_status, excerpt

_CHECK_CREDENTIALS = "Check the username and the password, and that the account may do this."
_MAY_PASS = "This may pass."  # noqa: S105 - no password

_STATUS = re.compile(
    r"(?:http status:?|status code:?|parsing http|status from \w+ request to|status:) *([1-5][0-9]{2})\b"
)
_RETRY_AFTER = re.compile(r"retry-after: ?([0-9]+(?:\.[0-9]+)?) ?(ms|µs|s)?")
_URL = re.compile(r"https?://[^\s\"']*")
_MAX_TEXT_LENGTH = 10_000
"""The engine repeats what a registry answers, and some of the patterns take quadratic time."""


_ENGINE_RULES = [
    (
        r"docker daemon|dial unix|fetching server api version|docker\.sock",
        ErrorClass.UNAVAILABLE,
        "The engine cannot be used now; the job waits for it.",
    ),
    (
        r"client version .* is too (?:new|old)|client is (?:newer|too old)|(?:minimum|maximum) supported api version",
        ErrorClass.UNAVAILABLE,
        "The engine speaks another version of its interface: use an engine that fits; the job waits for it.",
    ),
    (
        r"no space left on device|disk quota exceeded",
        ErrorClass.UNAVAILABLE,
        "The engine's disk is full; the job waits.",
    ),
    (
        r"does not exist locally|tag does not exist|no such image|reference does not exist",
        ErrorClass.NOT_FOUND,
        "The engine has the image no more.",
    ),
    (
        r"server gave http response to https client",
        ErrorClass.INVALID,
        "The registry speaks plain HTTP: list it in the engine's insecure-registries, or have the registry speak TLS.",
    ),
    (
        r"x509|failed to verify certificate|bad certificate|unknown certificate|certificate required",
        ErrorClass.INVALID,
        "The engine does not trust the registry's certificate: "
        "put its authority into the engine's certs.d directory (docker's documentation: certificates).",
    ),
    (r"invalid reference format|must be lowercase", ErrorClass.INVALID, "The image cannot be called so."),
]
"""Errors of the engine, matched first."""

_REGISTRY_RULES = [
    (r"toomanyrequests|too many requests|rate limit", ErrorClass.THROTTLED, "The registry asked to slow down."),
    (
        r"unauthorized|authentication required|no basic auth credentials|insufficient_scope|authorization failed"
        r"|incorrect username or password|\bdenied\b|\bforbidden\b|not authorized",
        ErrorClass.AUTH,
        _CHECK_CREDENTIALS,
    ),
    (r"blob upload (?:unknown|invalid)|manifest blob unknown", ErrorClass.TRANSIENT, _MAY_PASS),
    (
        r"name unknown|repository name not known|manifest unknown|blob unknown"
        r"|repository .* (?:not found|does not exist)",
        ErrorClass.NOT_FOUND,
        "Check the registry's path, and create the repository first where the registry wants that.",
    ),
    (
        r"manifest invalid|name invalid|tag invalid|invalid repository name|digest invalid|size invalid"
        r"|unsupported|schema version",
        ErrorClass.INVALID,
        "The registry will refuse the same image again: see what it says.",
    ),
    (
        r"\beof\b|connection re(?:set|fused)|broken pipe|timeout|timed out|deadline exceeded|no such host"
        r"|server misbehaving|temporary failure|no route to host|network is unreachable|closed network connection"
        r"|context canceled|goaway",
        ErrorClass.TRANSIENT,
        "The registry did not answer to the end; this may pass.",
    ),
]
"""Error texts of registries and of the network, matched after the HTTP status."""

_ADVICE_FOR_STATUS = {
    ErrorClass.AUTH: _CHECK_CREDENTIALS,
    ErrorClass.NOT_FOUND: "Check the registry's path, and that a registry is there at all.",
    ErrorClass.INVALID: "The registry, or a proxy before it, will refuse the same image again.",
    ErrorClass.THROTTLED: "The registry asked to slow down.",
    ErrorClass.TRANSIENT: _MAY_PASS,
}


def classify_message(text: str, *, host: str = "The engine", secrets: Collection[str] = ()) -> WorkError:
    """Return the error for a message in the engine's stream or of an APIError.

    An unknown message is transient: retries have a limit, but a push that failed by mistake is not retried.
    `host` begins the sentence; `secrets` are removed from `text`.
    """
    # URLs are left out because callers choose names in them: a repository may be called "denied".
    words = _URL.sub("", text[:_MAX_TEXT_LENGTH]).lower()
    error_class, advice = _classify(words)
    return WorkError(error_class, f"{host}: {excerpt(text, secrets)}. {advice}", retry_after=_retry_after(words))


def _classify(words: str) -> tuple[ErrorClass, str]:
    for pattern, error_class, advice in _ENGINE_RULES:
        if re.search(pattern, words):
            return error_class, advice
    status = _STATUS.search(words)
    if status:
        error_class = class_of_status(int(status[1]))
        return error_class, _ADVICE_FOR_STATUS[error_class]
    for pattern, error_class, advice in _REGISTRY_RULES:
        if re.search(pattern, words):
            return error_class, advice
    return ErrorClass.TRANSIENT, _MAY_PASS


def _retry_after(words: str) -> float | None:
    """Return the seconds in the text of a registry, such as GitHub's (`retry-after: 1.2s`)."""
    match = _RETRY_AFTER.search(words)
    if not match:
        return None
    per_second = {"ms": 1_000, "µs": 1_000_000}.get(match[2] or "s", 1)
    return min(float(match[1]) / per_second, MAX_RETRY_AFTER_SECONDS)
