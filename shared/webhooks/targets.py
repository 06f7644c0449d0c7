"""Where webhooks may go: the form of their addresses, and the networks that they may be in."""

from urllib.parse import urlsplit

from shared.hosts import is_loopback_host
from shared.networks import ForbiddenAddressError, webhook_networks
from shared.registry.origins import origin_of
from shared.settings import settings


class InvalidTargetError(ValueError):  # noqa: N818 - reads as what it says
    """An address that no webhook may have; the text is a sentence that never repeats a password."""


def check_target(url: str) -> None:
    """Refuse an address that cannot be told of anything here. It resolves the name: not within a transaction.

    Raises:
        InvalidTargetError: with a sentence.
    """
    if origin_of(url) is None or "#" in url:
        raise InvalidTargetError(
            "A webhook's url is an absolute https:// URL without user, password and fragment, in plain ASCII."
        )
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not (settings().webhook_allow_http or is_loopback_host(host)):
        raise InvalidTargetError("A webhook's url begins with https:// (LONGSHORE_WEBHOOK_ALLOW_HTTP).")
    try:
        webhook_networks().check_recorded(host, parts.port or 443)
    except ForbiddenAddressError as refusal:
        raise InvalidTargetError(str(refusal)) from None
