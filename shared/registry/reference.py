"""Image references: what Longshore calls an algorithm's image in a registry."""

import re

from shared.registry.address import PATH_SEGMENT, RegistryAddress

MAX_REPOSITORY_LENGTH = 255
"""Characters of `host/path/owner/name`: the engine refuses longer ones."""

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SEPARATORS = re.compile(r"[._-]+")


class InvalidReferenceError(ValueError):
    """No image can be called so; the text is a sentence that says why."""


def repository_path(address: RegistryAddress, owner: str, name: str) -> str:
    """The repository of an algorithm as the registry itself calls it: `path/owner/name`."""
    names = f"{normalize_name(owner)}/{normalize_name(name)}"
    return f"{address.path}/{names}" if address.path else names


def image_repository(address: RegistryAddress, owner: str, name: str) -> str:
    """The repository of an algorithm as an engine calls it: `host[:port]/path/owner/name`.

    Raises:
        InvalidReferenceError: it would be longer than an engine takes.
    """
    repository = f"{address.authority}/{repository_path(address, owner, name)}"
    if len(repository) > MAX_REPOSITORY_LENGTH:
        raise InvalidReferenceError(f"The image's name would be longer than {MAX_REPOSITORY_LENGTH} characters.")
    return repository


def repository_place(address: RegistryAddress, owner: str, name: str) -> str:
    """The same repository in one spelling, whichever way its registry was written: what a lock on it is called."""
    return f"{address.place}/{normalize_name(owner)}/{normalize_name(name)}"


def normalize_name(name: str) -> str:
    """`name` lower-cased and made a valid part of a repository name (distribution spec, `<name>`); never empty.

    Different names can end up equal (`Foo`, `_foo` and `foo`): who records names compares them mended.
    """
    lowered = re.sub(r"[^a-z0-9._-]", "_", name.lower())
    return _SEPARATORS.sub(lambda run: _one_separator(run[0]), lowered.strip("._-")) or "x"


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag (distribution spec, `<reference>` as a tag)."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of one of the registered algorithms (OCI image spec, descriptor: digests)."""
    return _DIGEST.fullmatch(text) is not None


def is_repository_path(text: str) -> bool:
    """Whether `text` is a repository's name within a registry (distribution spec, `<name>`)."""
    return len(text) <= MAX_REPOSITORY_LENGTH and all(PATH_SEGMENT.fullmatch(part) for part in text.split("/"))


def _one_separator(run: str) -> str:
    """The separator that the grammar allows in place of a run of `.`, `_` and `-`."""
    if set(run) == {"-"}:
        return run
    if set(run) == {"."}:
        return "."
    return "__" if set(run) == {"_"} and len(run) > 1 else "_"
