"""The check of a registry for its operator: is it reachable, does it accept the credentials, what do they allow."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import ErrorClass, WorkError
from shared.registry.client import RegistryClient


@dataclass(frozen=True)
class RegistryCheck:
    """The result of a check (contract: `POST /v1/registries/ID/check`)."""

    reachable: bool
    """Whether a container registry answered."""
    authenticated: bool
    """Whether the registry asked for credentials and accepted those it was given."""
    can_push: bool
    can_pull: bool
    message: str
    """The result in sentences, with what to do if something is wrong."""


def check_registry(client: RegistryClient, repository_path: str, *, seconds: float = 8.0) -> RegistryCheck:
    """Check a registry with the client's credentials, in at most `seconds`; `repository_path` is the push target.

    Errors of the registry are part of the result. After a timeout the client cannot be used any more.

    Raises:
        WorkCancelledError: the client's token was cancelled.
    """
    check = _Check(client, repository_path)
    # In a thread, because name resolution has no timeout of its own.
    thread = threading.Thread(target=check.run, name="registry-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        client.abort()
        return check.result(f"{client.host} did not complete the check within {seconds:g} seconds.")
    if check.error is not None:
        raise check.error
    return check.result(check.message)


class _Check:
    """Keeps what is known so far, so that a check that is cut short still has a result."""

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
            self.message = self._check()
        except WorkError as error:
            self.message = error.message
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error

    def result(self, message: str) -> RegistryCheck:
        return RegistryCheck(self._reachable, self._authenticated, self._can_push, self._can_pull, message)

    def _check(self) -> str:
        try:
            self._client.ping()
        except WorkError as error:
            # A refusal of the credentials, or a request to slow down, is a registry's response too.
            self._reachable = error.error_class in {ErrorClass.AUTH, ErrorClass.THROTTLED}
            raise
        self._reachable = True
        self._authenticated = self._accepted_credentials()
        push_error = _error_of(lambda: self._client.push_refusal(self._repository_path))
        self._can_push = push_error is None
        pull_error = _error_of(lambda: self._client.pull_refusal(self._repository_path))
        self._can_pull = pull_error is None
        # Some registries ask for credentials at pushes only.
        self._authenticated = self._accepted_credentials() and (self._can_push or self._authenticated)
        errors = [error.message for error in (push_error, pull_error) if error]
        return " ".join([self._summary(), *dict.fromkeys(errors)])

    def _accepted_credentials(self) -> bool:
        return self._client.credentials is not None and self._client.was_challenged

    def _summary(self) -> str:
        host = self._client.host
        allowed = [action for action, can in (("pushing", self._can_push), ("pulling", self._can_pull)) if can]
        allows = f"allows {' and '.join(allowed)}" if allowed else "allows neither pushing nor pulling"
        if self._authenticated:
            return f"{host} accepts the credentials and {allows} with them."
        if self._client.credentials is None:
            return f"{host} {allows} without credentials."
        if not self._client.was_challenged:
            return f"{host} never asked for the credentials and {allows} without any."
        return f"{host} {allows}."


def _error_of(probe: Callable[[], WorkError | None]) -> WorkError | None:
    """Return the refusal that a probe returns, or the error that it raises."""
    try:
        return probe()
    except WorkError as error:
        return error
