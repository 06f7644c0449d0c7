"""Credentials for recorded registries: how they are encrypted, and which provider returns them.

Every caller that needs credentials for a registry asks `credential_provider`. A provider of short-lived cloud tokens
(ECR, Artifact Registry) is another `CredentialProvider`, selected there by registry.
"""

import hashlib
from dataclasses import asdict
from typing import Protocol

from shared.db.models import Job, Registry
from shared.encryption import DecryptionError, Keyring, keyring
from shared.errors import ErrorClass, WorkError
from shared.registries.access import address_of
from shared.registry.credentials import Credentials


class CredentialsError(WorkError):
    """Raised when stored credentials cannot be decrypted."""


class CredentialProvider(Protocol):
    """Returns the credentials for one registry, decrypted at use; None: the registry is used without any."""

    def for_reading(self) -> Credentials | None:
        """Return the credentials for pulls and checks.

        Raises:
            CredentialsError: they cannot be decrypted (auth).
        """

    def for_push(self, job: Job) -> Credentials | None:
        """Return the credentials for a push: those given for this job, else the registry's own.

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

    def for_push(self, job: Job) -> Credentials | None:
        try:
            if job.credentials is None or job.registry_fingerprint is None:
                return decrypt_registry_credentials(self._keyring, self._registry)
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


def job_identity(job: Job) -> str:
    return f"jobs/{job.id}/credentials/{job.registry_fingerprint or ''}"
