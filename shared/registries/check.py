"""One look at a registry for its operator: is it there, does it take the credentials, what do they allow."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import ErrorClass, WorkError
from shared.registry.client import RegistryClient


@dataclass(frozen=True)
class RegistryCheck:
    """What was found (contract: `POST /v1/registries/ID/check`)."""

    reachable: bool
    """A container registry answered."""
    authenticated: bool
    """The registry asked for credentials and took those that it was given."""
    can_push: bool
    can_pull: bool
    message: str
    """What was found, in sentences; what to do where it is not well."""


def check_registry(client: RegistryClient, repository_path: str, *, seconds: float = 8.0) -> RegistryCheck:
    """Look at a registry with the client's credentials, in at most `seconds`; `repository_path` is what to push to.

    Whatever the registry does ends up in the answer. A client that ran out of time is of no further use.

    Raises:
        Stopped: the client's stop was asked for.
    """
    look = _Look(client, repository_path)
    # A thread, since nothing else bounds the resolving of a name.
    thread = threading.Thread(target=look.run, name="registry-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        client.abort()
        return look.found(f"{client.host} did not answer everything within {seconds:g} seconds.")
    if look.error is not None:
        raise look.error
    return look.found(look.message)


class _Look:
    """What is known so far, so that a look that is cut short still tells it."""

    def __init__(self, client: RegistryClient, repository_path: str) -> None:
        self._client = client
        self._repository_path = repository_path
        self._reachable = False
        self._authenticated = False
        self._can_push = False
        self._can_pull = False
        self.message = ""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.message = self._told()
        except WorkError as error:
            self.message = error.message
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error

    def found(self, message: str) -> RegistryCheck:
        return RegistryCheck(self._reachable, self._authenticated, self._can_push, self._can_pull, message)

    def _told(self) -> str:
        try:
            self._client.ping()
        except WorkError as error:
            # A refusal to let us in, or a request to slow down, is a registry's answer too.
            self._reachable = error.error_class in {ErrorClass.AUTH, ErrorClass.THROTTLED}
            raise
        self._reachable = True
        self._authenticated = self._were_credentials_taken()
        push_refusal = _met(lambda: self._client.push_refusal(self._repository_path))
        self._can_push = push_refusal is None
        pull_refusal = _met(lambda: self._client.pull_refusal(self._repository_path))
        self._can_pull = pull_refusal is None
        # Some registries let everybody in and ask only who pushes.
        self._authenticated = self._were_credentials_taken() and (self._can_push or self._authenticated)
        refusals = [refusal.message for refusal in (push_refusal, pull_refusal) if refusal]
        return " ".join([self._greeting(), *dict.fromkeys(refusals)])

    def _were_credentials_taken(self) -> bool:
        return self._client.credentials is not None and self._client.asked_for_credentials

    def _greeting(self) -> str:
        host = self._client.host
        allowed = [word for word, may in (("pushing", self._can_push), ("pulling", self._can_pull)) if may]
        allows = f"allows {' and '.join(allowed)}" if allowed else "allows neither pushing nor pulling"
        if self._authenticated:
            return f"{host} takes the credentials and {allows} with them."
        if self._client.credentials is not None and not self._client.asked_for_credentials:
            return f"{host} never asked for the credentials and {allows} without any."
        return f"{host} {allows}" + (" without credentials." if self._client.credentials is None else ".")


def _met(probe: Callable[[], WorkError | None]) -> WorkError | None:
    """What stands against it: a refusal, or that the registry failed when asked."""
    try:
        return probe()
    except WorkError as error:
        return error
