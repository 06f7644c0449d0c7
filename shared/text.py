"""Text from outside (registries, git, programs in a build), made fit for every database."""


def storable(text: str) -> str:
    """`text` with a mark in place of what cannot be stored: NUL (in PostgreSQL) and lone surrogates (no UTF-8)."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def sentence(text: str) -> str:
    """`text` with a capital and a full stop; a first word that is a name (of a file, a host) stays as it is."""
    first = text.partition(" ")[0]
    if first.isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
