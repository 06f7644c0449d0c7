"""The interface of the transports: push one image under its tags to one repository of a registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shared.pushes.progress import Progress
from shared.registry.upload import BlobOutcome


@dataclass(frozen=True)
class PushedImage:
    """The image that the registry has under each of the tags."""

    digest: str
    remark: str = ""
    """Addition to the status message: a sentence that begins with a space, or nothing."""
    outcomes: Mapping[str, BlobOutcome] = field(default_factory=dict)
    """How each blob came to the repository, by digest, as far as the transport knows."""


class Transport(Protocol):
    """A transport that pushes one image once."""

    def push(
        self,
        tags: tuple[str, ...],
        *,
        before_tag: Callable[[str], None],
        on_progress: Callable[[Progress, str], None],
    ) -> PushedImage:
        """Push the image under every tag, and have the registry confirm each.

        `before_tag` is called before each tag is set, and may raise to prevent it (the fence). `on_progress` is called
        with the progress and a message, from any thread but never concurrently.

        Raises:
            WorkCancelledError: the push was cancelled.
            WorkError: the registry, the engine or the store failed.

        """
