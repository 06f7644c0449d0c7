"""What every transport does: bring one image under its tags into one repository of a registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shared.registry.upload import BlobOutcome


@dataclass(frozen=True)
class PushProgress:
    """Bytes and layers. A layer that the registry has already counts as done, with no bytes.

    `total_bytes` may grow while a push runs: some transports learn a layer's size only when it begins.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0


@dataclass(frozen=True)
class PushedImage:
    """What the registry was given, under each of the tags."""

    digest: str
    """Of the manifest."""
    remark: str = ""
    """What the status should say of how it went; a sentence that begins with a space, or nothing."""
    placed: Mapping[str, BlobOutcome] = field(default_factory=dict)
    """How each blob came there, by digest, as far as the transport knows."""


class Transport(Protocol):
    """One way of pushing, made for one push."""

    def push(
        self,
        tags: tuple[str, ...],
        *,
        before_tag: Callable[[str], None],
        on_progress: Callable[[PushProgress, str], None],
    ) -> PushedImage:
        """Push the image under every tag.

        `before_tag` is called before each tag moves, and may raise to keep it where it is (the fence); `on_progress`
        is told how far it is, with a sentence, from any thread but never from two at once.

        Raises:
            Stopped: the stop was asked for.
            WorkError: what the registry, the engine or the store said, classified.
        """
