"""Credentials for recorded registries: how they are encrypted, and which provider returns them.

Every caller that needs credentials for a registry asks `credential_provider`. A provider of short-lived cloud tokens
(ECR, Artifact Registry) is another `CredentialProvider`, selected there by registry.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol

from shared.db.models import DefaultRegistry, Job, Registry
from shared.encryption import DecryptionError, Keyring, keyring
from shared.errors import ErrorClass, WorkError
from shared.registries.access import address_of
from shared.registry.credentials import Credentials


class CredentialsError(WorkError):
    """Raised when stored credentials cannot be decrypted."""


@dataclass(frozen=True)
class CredentialsUpdate:
    """New stored credentials, or their removal. Without either, they stay as they are."""

    given: Credentials | None = None
    removed: bool = False


class CredentialProvider(Protocol):
    """Returns the credentials for one registry, decrypted at use; None: the registry is used without any."""

    def for_reading(self) -> Credentials | None:
        """Return the credentials for pulls and checks.

        Raises:
            CredentialsError: they cannot be decrypted (auth).
        """

    def for_push(self, job: Job | None, defaults: Iterable[DefaultRegistry] = ()) -> Credentials | None:
        """Return the credentials for a push: the first of those given for this job, of a default, of the registry.

        `defaults`: those of the push's algorithm and owner that are this registry, the nearest first. Of the registry,
        its push account comes before the one for pulls. Without a job: for a push that names nothing.

        Raises:
            CredentialsError: they cannot be decrypted (invalid).
            WorkError: the registry was changed after the credentials were given (invalid).
        """


def credential_provider(registry: Registry) -> CredentialProvider:
    return StoredCredentialProvider(registry, keyring())


class StoredCredentialProvider:
    """Provides the encrypted credentials in the rows of the registry and of the job."""

    def __init__(self, registry: Registry, keyring: Keyring) -> None:
        self._registry = registry
        self._keyring = keyring

    def for_reading(self) -> Credentials | None:
        try:
            return decrypt_registry_credentials(self._keyring, self._registry)
        except DecryptionError as error:
            raise CredentialsError(
                ErrorClass.AUTH, f"The registry's own credentials cannot be used: {error}. Give them again."
            ) from error

    def for_push(self, job: Job | None, defaults: Iterable[DefaultRegistry] = ()) -> Credentials | None:
        try:
            if job is None or job.credentials is None or job.registry_fingerprint is None:
                return self._stored_for_push(defaults)
            if job.registry_fingerprint != fingerprint(self._registry):
                raise WorkError(
                    ErrorClass.INVALID,
                    "The registry was changed after the credentials were given, so they were not sent to it; "
                    "push again.",
                )
            return decrypt_job_credentials(self._keyring, job)
        except DecryptionError as error:
            raise CredentialsError(
                ErrorClass.INVALID, f"The credentials cannot be used: {error}. Give them again."
            ) from error

    def _stored_for_push(self, defaults: Iterable[DefaultRegistry]) -> Credentials | None:
        for default in defaults:
            if default.push_credentials is not None and default.registry_id == self._registry.id:
                return decrypt_default_credentials(self._keyring, default)
        if self._registry.push_credentials is not None:
            return decrypt_push_account(self._keyring, self._registry)
        return decrypt_registry_credentials(self._keyring, self._registry)


def fingerprint(registry: Registry) -> str:
    """Return the hash of what credentials are bound to, so that a changed registry does not receive them.

    It covers the scheme, the host, the TLS options and the proxy.
    """
    parts = [address_of(registry).origin, registry.verify_tls, registry.ca_certificate or "", registry.plain_http]
    if registry.proxy_url:
        parts.append(registry.proxy_url)  # over plain HTTP a proxy can read the password
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()


def encrypt_registry_credentials(keyring: Keyring, registry: Registry, credentials: Credentials) -> str:
    return keyring.encrypt(asdict(credentials), identity=registry_identity(registry))


def decrypt_registry_credentials(keyring: Keyring, registry: Registry) -> Credentials | None:
    """Return the registry's own credentials; None if it has none.

    Raises:
        DecryptionError: the key that encrypted them is gone.
    """
    if registry.credentials is None:
        return None
    return Credentials(**keyring.decrypt(registry.credentials, identity=registry_identity(registry)))


def encrypt_push_account(keyring: Keyring, registry: Registry, credentials: Credentials) -> str:
    return keyring.encrypt(asdict(credentials), identity=push_account_identity(registry))


def decrypt_push_account(keyring: Keyring, registry: Registry) -> Credentials:
    """Return the credentials of the registry's push account.

    Raises:
        DecryptionError: the key that encrypted them is gone.
    """
    return Credentials(**keyring.decrypt(registry.push_credentials or "", identity=push_account_identity(registry)))


def encrypt_default_credentials(keyring: Keyring, default: DefaultRegistry, credentials: Credentials) -> str:
    """Return credentials of a default, encrypted for its row and for the registry that it names now."""
    return keyring.encrypt(asdict(credentials), identity=default_identity(default))


def decrypt_default_credentials(keyring: Keyring, default: DefaultRegistry) -> Credentials:
    """Return the credentials of a default.

    Raises:
        DecryptionError: they belong to another row or registry, or the key that encrypted them is gone.
    """
    return Credentials(**keyring.decrypt(default.push_credentials or "", identity=default_identity(default)))


def encrypt_job_credentials(keyring: Keyring, job: Job, credentials: Credentials) -> str:
    """Return credentials given for one push, encrypted for its job and for the registry's present fingerprint."""
    return keyring.encrypt(asdict(credentials), identity=job_identity(job))


def decrypt_job_credentials(keyring: Keyring, job: Job) -> Credentials:
    """Return the credentials given for one push.

    Raises:
        DecryptionError: they belong to another job or fingerprint, or the key that encrypted them is gone.
    """
    return Credentials(**keyring.decrypt(job.credentials or "", identity=job_identity(job)))


def registry_identity(registry: Registry) -> str:
    return f"registries/{registry.id}/credentials"


def push_account_identity(registry: Registry) -> str:
    return f"registries/{registry.id}/push_credentials"


def default_identity(default: DefaultRegistry) -> str:
    return f"default_registries/{default.id}/push_credentials/{default.registry_id}"


def job_identity(job: Job) -> str:
    return f"jobs/{job.id}/credentials/{job.registry_fingerprint or ''}"
