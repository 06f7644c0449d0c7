"""Registry credentials as a body gives them, in either of the forms that clients send."""

from api.schemas.registries import CredentialsBody
from shared.refusals import bad_request
from shared.registry.credentials import Credentials, InvalidCredentials, from_registry_auth


def given_credentials(body: CredentialsBody) -> Credentials | None:
    """The credentials that a body gives; None when it gives none.

    Raises:
        Refusal: 400, half of a pair or an unreadable registry_auth.
    """
    username, password = body.registry_username, body.registry_password
    if body.registry_auth and (username is not None or password is not None):
        raise bad_request("Give registry_auth, or registry_username and registry_password, not both.")
    if (username is None) != (password is None):
        raise bad_request("registry_username and registry_password go together; give both, or neither.")
    try:
        if body.registry_auth:
            return from_registry_auth(body.registry_auth)
        if username is not None and password is not None:
            return Credentials(username, password)
    except InvalidCredentials as error:
        raise bad_request(str(error)) from None
    return None
