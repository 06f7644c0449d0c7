"""Create the Secret that a kubelet pulls with, and classify the errors that it reports for a pull."""

import base64
import json
import re

from kubernetes.client import V1ObjectMeta, V1Secret

from shared.db.models import Registry
from shared.errors import ErrorClass, WorkError
from shared.registries.access import address_of
from shared.registry.address import DOCKER_HUB
from shared.registry.credentials import Credentials
from workers.serving.kubernetes.labels import REGISTRY, STARTED, common_labels, pull_secret_name

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""The key under which a kubelet looks for Docker Hub's credentials."""
PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
MAX_MESSAGE_LENGTH = 500
_QUERY_STRING = re.compile(r"\?[^\s\"']+")
_CLASS_PATTERNS = (
    (ErrorClass.THROTTLED, re.compile(r"toomanyrequests|too many requests|\b429\b", re.IGNORECASE)),
    (
        ErrorClass.AUTH,
        re.compile(r"unauthorized|authorization failed|denied|forbidden|no basic auth|\b40[13]\b", re.IGNORECASE),
    ),
    (ErrorClass.NOT_FOUND, re.compile(r"not found|notfound|manifest unknown|name unknown|\b404\b", re.IGNORECASE)),
)
_ADVICE = {
    ErrorClass.AUTH: " Check the registry's own credentials: they need the right to pull.",
    ErrorClass.NOT_FOUND: " Push the version there again.",
}


def pull_secret(registry: Registry, credentials: Credentials, start_id: str) -> V1Secret:
    """Return a Secret with the registry's own credentials (type `kubernetes.io/dockerconfigjson`).

    Raises:
        WorkError: the credentials are an identity token, which a kubelet cannot use (auth).
    """
    if credentials.is_identity_token:
        raise WorkError(
            ErrorClass.AUTH,
            f"The credentials of {registry.registry_url} are an identity token, which Kubernetes cannot pull with: "
            "give the registry a username and a password.",
        )
    address = address_of(registry)
    key = DOCKER_HUB_KEY if address.host == DOCKER_HUB else address.authority
    pair = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    return V1Secret(
        api_version="v1",
        kind="Secret",
        type="kubernetes.io/dockerconfigjson",
        metadata=V1ObjectMeta(
            name=pull_secret_name(registry.id),
            labels={**common_labels("pull"), REGISTRY: registry.id},
            annotations={STARTED: start_id},
        ),
        data={".dockerconfigjson": base64.b64encode(json.dumps({"auths": {key: {"auth": pair}}}).encode()).decode()},
    )


def pull_error(image: str, reason: str, message: str) -> WorkError:
    if reason == "InvalidImageName":
        return WorkError(ErrorClass.INVALID, f"The cluster cannot read the image's name {image!r}; push it again.")
    # The message may have addresses that the registry redirected to, and those may be signed.
    text = _QUERY_STRING.sub("", message).strip()[:MAX_MESSAGE_LENGTH].rstrip(".")
    error_class = next((found for found, pattern in _CLASS_PATTERNS if pattern.search(text)), ErrorClass.TRANSIENT)
    return WorkError(
        error_class,
        f"The cluster could not pull {image} ({reason}): {text or 'no reason given'}.{_ADVICE.get(error_class, '')}",
    )
