"""What a build reports to, and what can end it before it is done."""

from dataclasses import dataclass

from shared.stopping import CancelToken
from workers.engine.limits import Deadline
from workers.engine.log import BuildLog


@dataclass(frozen=True)
class BuildWatch:
    """The log of one build, the stop that somebody may ask for, and the moment when its time is up."""

    log: BuildLog
    stop: CancelToken
    deadline: Deadline

    def check(self) -> None:
        """Raise if the build must end.

        Raises:
            Stopped: the stop was asked for.
            WorkError: the time is used up (invalid).
        """
        self.stop.check()
        self.deadline.check()
