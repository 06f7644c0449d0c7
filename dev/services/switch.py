"""Turn a service off and on again while clients keep using its address."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

Service = TypeVar("Service")


class Switch(Generic[Service]):
    """A service that is on during the block, except while it is turned off in it.

    `start` must return the same service each time: the same directory and port. Call it from the main thread only (see
    `dev.services.processes.running`).
    """

    def __init__(self, start: Callable[[], AbstractContextManager[Service]]) -> None:
        self._start = start
        self._on: ExitStack | None = None
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The value of `start`, even while it is off.

        Raises:
            RuntimeError: it was never on.
        """
        if self._service is None:
            raise RuntimeError("the service was never turned on")
        return self._service

    def on(self) -> Service:
        """Turn it on, unless it is on.

        Raises:
            ServiceFailedError: it does not start.
        """
        if self._on is None:
            with ExitStack() as stack:
                self._service = stack.enter_context(self._start())
                self._on = stack.pop_all()
        return self.service

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
