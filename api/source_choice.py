"""Read from a request where the source of an algorithm is to be kept. A field that cannot be obeyed is refused."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from api.authentication import caller
from api.owner_slots import remote_slots
from api.proxy_headers import public_url
from api.schemas.sources import UNKNOWN_ID, ScmsCredentialsRequest, SourceRequest, present_source
from shared.db.models import Algorithm
from shared.encryption import keyring
from shared.errors import ConflictError, InvalidInputError
from shared.git.repository_url import MAX_URL, InvalidRepositoryUrlError
from shared.git.sources import check_new_repository, encrypt_source_credentials, parse_repository_url
from shared.scms import TOKEN_USERS, enabled_scm, find_scm, repository_url_in
from shared.settings.scms import HOSTED_ID, Scm

UNEXPECTED_CREDENTIALS = (
    "source.credentials are for a source.repository_https_url; a repository that Longshore hosts needs none."
)
UNEXPECTED_SCMS_CREDENTIALS = (
    "scmsCredentials are for a repository in a configured source.scm (GET /v1/scms); give those of another repository "
    "as source.credentials."
)
_URL = "source.repository_https_url"


@dataclass(frozen=True)
class SourceChoice:
    """What a request says about the repository. None: it stays as it is."""

    url: str | None = None
    scm_id: str | None = None
    credentials: tuple[str, str] | None = None

    @property
    def is_empty(self) -> bool:
        return self.url is None and self.credentials is None


def choose_source(
    source: SourceRequest | None,
    credentials: ScmsCredentialsRequest | None,
    algorithm: Algorithm,
    *,
    is_new: bool = False,
) -> SourceChoice:
    """Return what a request says about the repository of an algorithm, which may be new.

    Raises:
        InvalidInputError: a field names what is not configured, contradicts another one, or cannot be obeyed.
        ConflictError: credentials for a repository that is hosted already.
    """
    given = _without_present_values(source or SourceRequest(), algorithm)
    scm = _chosen_scm(given, algorithm)
    if scm is None:
        if is_new and given.credentials and not given.repository_https_url:
            raise InvalidInputError(UNEXPECTED_CREDENTIALS)
        return _outside_of_systems(given, credentials, algorithm)
    return _in_system(scm, given, credentials, algorithm)


def _without_present_values(source: SourceRequest, algorithm: Algorithm) -> SourceRequest:
    """Return the request without what the algorithm's own response says: clients send that back."""
    response = present_source(algorithm, public_url())
    if source.scm not in (None, response.scm.id):
        return source
    present = {
        name: getattr(response, name) for name in ("repository_https_url", "repository_name", "repository_owner")
    } | {"scm": response.scm.id}
    same = {name: None for name, value in present.items() if getattr(source, name) == value}
    if source.repository_https_url and "repository_https_url" not in same and response.scm.id != UNKNOWN_ID:
        same.pop("scm", None)  # both name a repository, and contradict each other
    return source.model_copy(update=same)


def _chosen_scm(source: SourceRequest, algorithm: Algorithm) -> Scm | None:
    if source.scm is not None and source.scm != HOSTED_ID:
        return enabled_scm(source.scm)
    if source.scm == HOSTED_ID or source.repository_https_url:
        return None
    return find_scm(algorithm.scm_id)


def _outside_of_systems(
    source: SourceRequest, credentials: ScmsCredentialsRequest | None, algorithm: Algorithm
) -> SourceChoice:
    if source.scm == HOSTED_ID and (source.repository_https_url or not algorithm.hosted):
        raise InvalidInputError(
            f"source.scm: {HOSTED_ID} is a repository that Longshore hosts. "
            + (
                f"Leave out {_URL}, or source.scm."
                if source.repository_https_url
                else "An algorithm whose repository is elsewhere cannot get one; create another algorithm."
            )
        )
    for name in ("repository_owner", "repository_name", "existing_repository_name"):
        if getattr(source, name) is not None:
            raise InvalidInputError(
                f"source.{name}: this chooses a repository in a configured source.scm (GET /v1/scms). Name such "
                f"a one, or the repository by its {_URL}. A repository that Longshore hosts has the algorithm's owner "
                "and name."
            )
    if credentials is not None:
        raise InvalidInputError(UNEXPECTED_SCMS_CREDENTIALS)
    if source.credentials is None:
        return SourceChoice(source.repository_https_url or None)
    if not source.repository_https_url and algorithm.hosted:
        raise ConflictError(UNEXPECTED_CREDENTIALS)
    return SourceChoice(
        source.repository_https_url or None, None, (source.credentials.username, source.credentials.password)
    )


def _in_system(
    scm: Scm, source: SourceRequest, credentials: ScmsCredentialsRequest | None, algorithm: Algorithm
) -> SourceChoice:
    if source.repository_https_url:
        raise InvalidInputError(f"Name the repository by source.scm or by {_URL}, not by both.")
    if source.credentials is not None and credentials is not None:
        raise InvalidInputError("Give source.credentials or scmsCredentials, not both.")
    pair = _credentials(scm, credentials)
    if source.credentials is not None:
        pair = (source.credentials.username, source.credentials.password)
    name = source.existing_repository_name or source.repository_name
    if source.existing_repository_name and source.repository_name not in (None, name):
        raise InvalidInputError("source.existing_repository_name and source.repository_name differ; give one of them.")
    if name is None and source.repository_owner is None and algorithm.scm_id == scm.id:
        return SourceChoice(credentials=pair)
    response = present_source(algorithm, "") if algorithm.scm_id == scm.id else None
    owner = source.repository_owner or (response.repository_owner if response else None)
    name = name or (response.repository_name if response else None)
    if owner is None or name is None:
        raise InvalidInputError(
            f"source.scm: {scm.id!r} needs source.repository_owner and source.repository_name (or "
            "existing_repository_name) of a repository that is there; Longshore makes none elsewhere."
        )
    return SourceChoice(repository_url_in(scm, owner, name), scm.id, pair)


def _credentials(scm: Scm, given: ScmsCredentialsRequest | None) -> tuple[str, str] | None:
    if given is None:
        return None
    if given.password is not None and given.secret_token is not None:
        raise InvalidInputError("scmsCredentials: give a password or a secret_token, not both.")
    if given.secret_token is not None:
        return given.username or TOKEN_USERS[scm.provider], given.secret_token
    if given.username is None and given.password is None:
        return None
    if given.username is None or given.password is None:
        raise InvalidInputError("scmsCredentials: give username and password, or a secret_token.")
    return given.username, given.password


def check_source(choice: SourceChoice, owner: str) -> None:
    """Check the address of a chosen repository; it is resolved, so this is done outside of a transaction.

    Raises:
        InvalidInputError: the URL is invalid, its address is forbidden, or the ssh key is not for it.
    """
    if choice.url is None:
        return
    try:
        url = parse_repository_url(choice.url)
        # A name server can be slow; beyond a few at a time, names are checked at their use only.
        resolves = remote_slots().acquire(caller().owner)
        try:
            check_new_repository(url, owner, resolves=resolves)
        finally:
            if resolves:
                remote_slots().release(caller().owner)
    except InvalidRepositoryUrlError as error:
        raise InvalidInputError(f"{_field(choice)}: {error}") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{_field(choice)}: {error.message}") from None


def apply_source(algorithm: Algorithm, choice: SourceChoice) -> None:
    """Change the repository of an algorithm. Credentials for another host are removed.

    Raises:
        InvalidInputError: the URL is invalid.
    """
    if choice.url is not None:
        try:
            url = parse_repository_url(choice.url)
        except ValueError as error:
            raise InvalidInputError(f"{_field(choice)}: {error}") from None
        if algorithm.repository_url and _host(algorithm.repository_url) != _host(str(url)):
            algorithm.source_credentials = None
        if algorithm.repository_url != str(url):
            algorithm.webhook_secret = None  # the other repository's administrators may know it
        algorithm.repository_url, algorithm.scm_id = str(url), choice.scm_id
        if len(algorithm.repository_url) > MAX_URL:  # git's short form is longer as a URL
            raise InvalidInputError(f"{_field(choice)}: it has at most {MAX_URL} characters as {url.scheme}://….")
    if choice.credentials is not None:
        algorithm.source_credentials = encrypt_source_credentials(keyring(), algorithm, *choice.credentials)


def _field(choice: SourceChoice) -> str:
    return _URL if choice.scm_id is None else f"source.scm {choice.scm_id}"


def _host(url: str) -> tuple[str, str]:
    return urlsplit(url)[:2]
