"""Image references: the names of an algorithm's image in a registry."""

import re

from shared.errors import InvalidValueError
from shared.registry.address import PATH_SEGMENT, RegistryAddress

MAX_REPOSITORY_LENGTH = 255
"""Characters of `host/path/owner/name` that the engine accepts."""

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SEPARATORS = re.compile(r"[._-]+")


class InvalidReferenceError(InvalidValueError):
    """Raised when an image cannot have a name. The text is a sentence that says why."""


def repository_path(address: RegistryAddress, owner: str, name: str) -> str:
    """Return the repository of an algorithm within the registry: `path/owner/name`."""
    names = f"{normalize_name(owner)}/{normalize_name(name)}"
    return f"{address.path}/{names}" if address.path else names


def image_repository(address: RegistryAddress, owner: str, name: str) -> str:
    """Return the repository of an algorithm for an engine: `host[:port]/path/owner/name`.

    Raises:
        InvalidReferenceError: it is longer than an engine accepts.
    """
    repository = f"{address.authority}/{repository_path(address, owner, name)}"
    if len(repository) > MAX_REPOSITORY_LENGTH:
        raise InvalidReferenceError(f"The image's name would be longer than {MAX_REPOSITORY_LENGTH} characters.")
    return repository


def canonical_repository(address: RegistryAddress, owner: str, name: str) -> str:
    return f"{address.canonical}/{normalize_name(owner)}/{normalize_name(name)}"


def normalize_name(name: str) -> str:
    """Return `name` as a valid part of a repository name (distribution spec, `<name>`), in lower case; never empty.

    Different names can become equal (`Foo`, `_foo` and `foo`), so names must be compared after this.
    """
    lowered = re.sub(r"[^a-z0-9._-]", "_", name.lower())
    return _SEPARATORS.sub(lambda run: _normalize_separators(run[0]), lowered.strip("._-")) or "x"


def is_tag(text: str) -> bool:
    """Return whether `text` can be a tag (distribution spec, `<reference>` as a tag)."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Return whether `text` is a digest of a registered algorithm (OCI image spec, descriptor: digests)."""
    return _DIGEST.fullmatch(text) is not None


def is_repository_path(text: str) -> bool:
    """Return whether `text` is the name of a repository within a registry (distribution spec, `<name>`)."""
    return len(text) <= MAX_REPOSITORY_LENGTH and all(PATH_SEGMENT.fullmatch(part) for part in text.split("/"))


def _normalize_separators(run: str) -> str:
    """Return the separator that the grammar allows in place of a run of `.`, `_` and `-`."""
    if set(run) == {"-"}:
        return run
    if set(run) == {"."}:
        return "."
    return "__" if set(run) == {"_"} and len(run) > 1 else "_"
