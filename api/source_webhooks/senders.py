"""The services that send webhooks: the headers that name event and delivery, and how the delivery is signed.

The documents are GitHub's "Validating webhook deliveries", GitLab's "Webhook events", Atlassian's "Event payload" for
Bitbucket Cloud and Data Center, and Gitea's "Webhooks".
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from werkzeug.datastructures import Headers

from api.source_webhooks.payloads import (
    Push,
    read_bitbucket_cloud,
    read_bitbucket_server,
    read_github,
    read_gitlab,
)

HUB_PREFIX = "sha256="


@dataclass(frozen=True)
class Sender:
    """A service that sends webhooks."""

    name: str
    signature_header: str
    event_header: str
    delivery_headers: tuple[str, ...]
    """Headers that name a delivery, also when it is sent again."""
    expected_signature: Callable[[str, bytes], str]
    """Return the signature of a body under a secret."""
    pushes: dict[str, Callable[[object], Push]]
    """How the payload of each event that is a push is read."""
    sends_forms: bool = False
    """Whether the payload may be the field `payload` of a form."""

    def has_signed(self, headers: Headers, secret: str, body: bytes) -> bool:
        """Return whether the delivery has the signature of this secret. It takes the same time for every signature."""
        given = headers.get(self.signature_header, "").encode("utf-8", "replace")
        return hmac.compare_digest(self.expected_signature(secret, body).encode(), given)

    def delivery_id(self, headers: Headers) -> str | None:
        return next((headers[name] for name in self.delivery_headers if headers.get(name)), None)


def _hex(secret: str, body: bytes) -> str:
    return hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def _prefixed_hex(secret: str, body: bytes) -> str:
    return HUB_PREFIX + _hex(secret, body)


def _token(secret: str, _body: bytes) -> str:
    return secret


SENDERS = (
    # Gitea sends the headers of GitHub too.
    Sender(
        "Gitea",
        "X-Gitea-Signature",
        "X-Gitea-Event",
        ("X-Gitea-Delivery",),
        _hex,
        {"push": read_github},
        sends_forms=True,
    ),
    Sender(
        "GitHub",
        "X-Hub-Signature-256",
        "X-GitHub-Event",
        ("X-GitHub-Delivery",),
        _prefixed_hex,
        {"push": read_github},
        sends_forms=True,
    ),
    # X-Gitlab-Event-UUID does not name a delivery: events that a webhook's receiver causes have the same one.
    Sender("GitLab", "X-Gitlab-Token", "X-Gitlab-Event", ("Idempotency-Key",), _token, {"Push Hook": read_gitlab}),
    Sender(
        "Bitbucket",
        "X-Hub-Signature",
        "X-Event-Key",
        ("X-Request-UUID", "X-Request-Id"),
        _prefixed_hex,
        {"repo:push": read_bitbucket_cloud, "repo:refs_changed": read_bitbucket_server},
    ),
)


def find_sender(headers: Headers) -> Sender | None:
    """Return the service whose signature a delivery has; None: it has none."""
    return next((sender for sender in SENDERS if headers.get(sender.signature_header)), None)
