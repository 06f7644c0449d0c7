"""Text from outside (registries, git, programs in a build), made fit for every database."""


def storable(text: str) -> str:
    """`text` with a mark in place of what cannot be stored: NUL (in PostgreSQL) and lone surrogates (no UTF-8)."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
