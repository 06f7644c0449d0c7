"""What can run images: told what to start and to stop, asked what runs. It keeps no state of its own.

What runs images in this installation, as its settings choose it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.cancellation import CancelToken
from shared.db.models import Instance, Registry
from shared.registry.credentials import Credentials


@dataclass(frozen=True)
class Start:
    """One image to be run, and what may be known of it."""

    instance: Instance
    algorithm: str
    """OWNER/NAME, for labels."""
    git_hash: str
    registry: Registry | None
    """Where the image is pulled from; nothing: it is in the platform's own store."""
    credentials: Credentials | None
    """The registry's own, with which it is read."""


@dataclass(frozen=True)
class Started:
    """What runs now."""

    endpoint: str
    """Where calls go, as `Serving.endpoint` says."""
    runtime_ref: str


@dataclass(frozen=True)
class Observed:
    """How something that was started is."""

    alive: bool
    why: str = ""
    """What ended it, in a sentence."""


class Backend(Protocol):
    """Runs images. Every method can be called again with the same effect, by whichever worker."""

    @property
    def one_per_version(self) -> bool:
        """Whether a start ends what ran of its version; else that goes on beside it until it has drained."""

    def start(self, start: Start, say: Callable[[str], None], stop: CancelToken) -> Started:
        """Have the registry asked for the image, run it, and wait until it takes calls.

        An algorithm that fails to load takes calls too: each is answered with how it failed.

        Raises:
            Stopped: the stop was asked for; nothing of it runs then.
            WorkError: it cannot be pulled or run; the message says why and what to do.
        """

    def observe(self, instances: Sequence[Instance]) -> Mapping[str, Observed]:
        """How these are, by their ids. One that is not in the answer runs nowhere.

        Raises:
            WorkError: what runs them does not answer (unavailable).
        """

    def restart(self, instance: Instance) -> bool:
        """Have what runs replaced by what the registry gives now, while it goes on taking calls.

        Whether that can be: otherwise it is to drain, and the next call starts it anew.

        Raises:
            WorkError: what runs it does not answer (unavailable).
        """

    def stop(self, instance: Instance) -> None:
        """End it: calls that are under way get the seconds that the runner gives them, new ones are refused.

        Harmless where nothing of it runs.

        Raises:
            WorkError: what runs it does not answer (unavailable).
        """

    def clear(self, running: Collection[str], existing: Callable[[Collection[str]], Collection[str]]) -> None:
        """Remove what this installation once started and nobody knows of any more.

        `running`: the ids of the servings that may run. `existing` tells which of these versions are still there.

        Raises:
            WorkError: what runs them does not answer (unavailable).
        """
