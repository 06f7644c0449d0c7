"""Credentials for a registry, and the two forms in which a caller may send them."""

import base64
import binascii
import json
from dataclasses import dataclass, field

from shared.errors import InvalidValueError
from shared.registry.address import InvalidAddressError, RegistryAddress

MAX_REGISTRY_AUTH = 4096
"""Characters of a `registry_auth`."""

IDENTITY_TOKEN_USER = "<token>"  # noqa: S105 - a name, not a secret
"""The username under which Docker stores an identity (refresh) token as the password."""


class InvalidCredentialsError(InvalidValueError):
    """Raised for invalid credentials. The text is a sentence that never repeats them."""


@dataclass(frozen=True)
class Credentials:
    """A username and a password, or an identity token under the username `<token>`."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.username or not self.password:
            raise InvalidCredentialsError("A registry's credentials need a username and a password, both not empty.")
        if ":" in self.username:
            raise InvalidCredentialsError("A registry's username cannot hold a colon (RFC 7617).")
        if any(0xD800 <= ord(character) <= 0xDFFF for character in self.username + self.password):
            raise InvalidCredentialsError("A registry's username and password cannot hold halves of surrogate pairs.")
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in self.username + self.password):
            raise InvalidCredentialsError(
                "A registry's username and password cannot hold control characters (RFC 7617)."
            )

    @property
    def is_identity_token(self) -> bool:
        """Whether the password is a refresh token, which must be exchanged for access tokens."""
        return self.username == IDENTITY_TOKEN_USER

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header (RFC 7617, in UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def from_registry_auth(text: str, address: RegistryAddress | None = None) -> Credentials:
    """Read a `registry_auth`: a docker `auths` document, or base64 of such a document or of `user:password`.

    A document with several registries needs `address` to choose one. With `address`, credentials that the document
    has for other registries only are refused instead of sent to this one.

    Raises:
        InvalidCredentialsError: with a sentence for the caller.
    """
    if len(text) > MAX_REGISTRY_AUTH:
        raise InvalidCredentialsError(f"registry_auth is longer than {MAX_REGISTRY_AUTH} characters.")
    text = text.strip()
    if not text.startswith("{"):
        text = _decode(text, "registry_auth is neither a docker 'auths' document nor base64 of user:password.")
    if not text.startswith("{"):
        return _from_pair(text, "registry_auth")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidCredentialsError("registry_auth begins like a JSON document but is not one.") from None
    auths = document.get("auths")
    if not isinstance(auths, dict) or not auths:
        raise InvalidCredentialsError("registry_auth has no 'auths' object with a registry in it.")
    entry = _select_entry(address, auths)
    if not isinstance(entry, dict):
        raise InvalidCredentialsError("registry_auth's entry for the registry is not an object.")
    return _from_entry(entry)


def _select_entry(address: RegistryAddress | None, auths: dict[str, object]) -> object:
    if address is None:
        if len(auths) > 1:
            raise InvalidCredentialsError("registry_auth has several registries: leave only the one to use.")
        return next(iter(auths.values()))
    for key, entry in auths.items():
        try:
            if _canonical_host(RegistryAddress.parse(key)) == _canonical_host(address):
                return entry
        except InvalidAddressError:
            continue
    raise InvalidCredentialsError(f"registry_auth has no entry for {address.authority}.")


def _canonical_host(address: RegistryAddress) -> str:
    return address.canonical.partition("/")[0]


def _from_entry(entry: dict[str, object]) -> Credentials:
    identity_token, auth = entry.get("identitytoken"), entry.get("auth")
    username, password = entry.get("username"), entry.get("password")
    if isinstance(identity_token, str) and identity_token:
        return Credentials(IDENTITY_TOKEN_USER, identity_token)
    if isinstance(auth, str) and auth:
        return _from_pair(_decode(auth, "registry_auth's 'auth' is not base64 of user:password."), "'auth'")
    if isinstance(username, str) and isinstance(password, str):
        return Credentials(username, password)
    raise InvalidCredentialsError("registry_auth's entry has neither 'auth' nor 'username' and 'password'.")


def _decode(text: str, message: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidCredentialsError(message) from None


def _from_pair(text: str, source: str) -> Credentials:
    username, colon, password = text.partition(":")
    if not colon:
        raise InvalidCredentialsError(f"{source} is not user:password after decoding (there is no colon in it).")
    return Credentials(username, password)
