"""Registries as callers write and read them."""

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.base import Body, Shown, Text
from shared.clock import rfc3339
from shared.models import Registry

Username = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
Password = Annotated[Text, StringConstraints(min_length=1, max_length=8192)]


class CredentialsBody(Body):
    """Username and password, as any of the clients sends them."""

    registry_username: Username | None = None
    registry_password: Password | None = None
    registry_auth: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        None, description="In place of both: a docker `auths` document, or base64 `user:password`."
    )


class RegistryBody(CredentialsBody):
    """A registry to record, or its new state."""

    registry_url: Text
    name: Annotated[Text, StringConstraints(max_length=32)] | None = None
    verify_tls: bool = True
    ca_certificate: Annotated[Text, StringConstraints(max_length=65_536)] | None = None
    plain_http: bool = False


class RegistryShown(Shown):
    """A recorded registry; never a credential."""

    id: str
    name: str | None
    registry_url: str
    created_at: str
    updated_at: str
    has_credentials: bool
    verify_tls: bool
    ca_certificate: str | None
    plain_http: bool


class RegistryCheckShown(Shown):
    """What a registry answered when it was asked."""

    reachable: bool
    authenticated: bool
    can_push: bool
    can_pull: bool
    message: str


def show_registry(registry: Registry) -> RegistryShown:
    """A registry as callers read it."""
    return RegistryShown(
        id=registry.id,
        name=registry.name,
        registry_url=registry.registry_url,
        created_at=rfc3339(registry.created_at) or "",
        updated_at=rfc3339(registry.updated_at) or "",
        has_credentials=registry.credentials is not None,
        verify_tls=registry.verify_tls,
        ca_certificate=registry.ca_certificate,
        plain_http=registry.plain_http,
    )
