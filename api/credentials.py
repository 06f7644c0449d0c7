"""Registry credentials of a request, in one of the forms that clients send."""

from sqlalchemy.orm import Session

from api.schemas.pushes import PushCredentialsRequest
from api.schemas.registries import CredentialsRequest
from shared.commands.push import PushRequest
from shared.errors import InvalidInputError
from shared.registries.client import address_of
from shared.registries.rows import find_registry
from shared.registry.address import RegistryAddress
from shared.registry.credentials import Credentials, InvalidCredentialsError, from_registry_auth


def parse_credentials(body: CredentialsRequest, registry: RegistryAddress | None) -> Credentials | None:
    """Return the credentials of a request for a registry; None if it has none.

    A docker `auths` document may contain credentials of several registries: only those of `registry` are used.

    Raises:
        InvalidInputError: half of a pair, or an unreadable registry_auth.
    """
    username, password = body.registry_username, body.registry_password
    if body.registry_auth and (username is not None or password is not None):
        raise InvalidInputError("Give registry_auth, or registry_username and registry_password, not both.")
    if (username is None) != (password is None):
        raise InvalidInputError("registry_username and registry_password go together; give both, or neither.")
    try:
        if body.registry_auth:
            return from_registry_auth(body.registry_auth, registry)
        if username is not None and password is not None:
            return Credentials(username, password)
    except InvalidCredentialsError as error:
        raise InvalidInputError(str(error)) from None
    return None


def push_request(session: Session, push: PushCredentialsRequest) -> PushRequest:
    """Return the requested push to one registry.

    Raises:
        NotFoundError: no such registry.
        InvalidInputError: its credentials are invalid.
    """
    registry = find_registry(session, push.registry_id)
    return PushRequest(registry.id, parse_credentials(push, address_of(registry)))
