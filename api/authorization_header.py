"""Read the API key from the header `Authorization`."""

import base64
import binascii


def secret_of(header: str | None) -> str | None:
    """Return the key in an `Authorization` header: the password of Basic, after `Simple` or `Bearer`, or bare."""
    scheme, _, rest = (header or "").strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, ValueError):
            return None
    if scheme.lower() in ("simple", "bearer"):
        return rest or None
    return scheme or None if not rest else None
