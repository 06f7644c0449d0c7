"""A part that can be turned off and on again while others go on using its address."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

Part = TypeVar("Part")


class Switch(Generic[Part]):
    """A part that is on for the length of the block, unless it is turned off and on in it.

    `begin` must give the same part each time: the same directory and port. Turn it from the main thread only (see
    `dev.services.processes.running`).
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[Part]]) -> None:
        self._begin = begin
        self._on: ExitStack | None = None
        self._part: Part | None = None

    @property
    def part(self) -> Part:
        """What `begin` gave, also while it is off.

        Raises:
            RuntimeError: it was never on.
        """
        if self._part is None:
            raise RuntimeError("the part was never turned on")
        return self._part

    def on(self) -> Part:
        """Turn it on, unless it is on.

        Raises:
            PartFailedError: it does not come up.
        """
        if self._on is None:
            with ExitStack() as stack:
                self._part = stack.enter_context(self._begin())
                self._on = stack.pop_all()
        return self.part

    def off(self) -> None:
        """Turn it off, unless it is off."""
        stack, self._on = self._on, None
        if stack is not None:
            stack.close()

    def __enter__(self) -> Self:
        self.on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.off()
