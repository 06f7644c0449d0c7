"""Pulling: the Secret with a registry's credentials, and what the kubelet says when an image cannot be had."""

import base64
import json
import re

from kubernetes.client import V1ObjectMeta, V1Secret

from shared.db.models import Registry
from shared.errors import ErrorClass, WorkError
from shared.registries.rows import address_of
from shared.registry.address import DOCKER_HUB
from shared.registry.credentials import Credentials
from workers.kubernetes.labels import REGISTRY, STARTED, common_labels, pull_secret_name

HUB_KEY = "https://index.docker.io/v1/"
"""Under this name the kubelet looks for Docker Hub's credentials."""
PULL_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
MAX_REASON = 500
_QUERY = re.compile(r"\?[^\s\"']+")
_CLASSES = (
    (ErrorClass.THROTTLED, re.compile(r"toomanyrequests|too many requests|\b429\b", re.IGNORECASE)),
    (
        ErrorClass.AUTH,
        re.compile(r"unauthorized|authorization failed|denied|forbidden|no basic auth|\b40[13]\b", re.IGNORECASE),
    ),
    (ErrorClass.NOT_FOUND, re.compile(r"not found|notfound|manifest unknown|name unknown|\b404\b", re.IGNORECASE)),
)


def pull_secret(registry: Registry, credentials: Credentials, started: str) -> V1Secret:
    """The registry's own credentials, as the kubelet takes them (`kubernetes.io/dockerconfigjson`).

    Raises:
        WorkError: they are an identity token, which the kubelet cannot use (auth).
    """
    if credentials.is_identity_token:
        message = (
            f"The credentials of {registry.registry_url} are an identity token, which Kubernetes cannot pull with: "
            "give the registry a username and a password."
        )
        raise WorkError(ErrorClass.AUTH, message)
    address = address_of(registry)
    key = HUB_KEY if address.host == DOCKER_HUB else address.authority
    pair = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    document = json.dumps({"auths": {key: {"auth": pair}}}).encode()
    return V1Secret(
        api_version="v1",
        kind="Secret",
        type="kubernetes.io/dockerconfigjson",
        metadata=V1ObjectMeta(
            name=pull_secret_name(registry.id),
            labels={**common_labels("pull"), REGISTRY: registry.id},
            annotations={STARTED: started},
        ),
        data={".dockerconfigjson": base64.b64encode(document).decode()},
    )


def pull_problem(image: str, reason: str, message: str) -> WorkError:
    """What a container's waiting for its image means."""
    if reason == "InvalidImageName":
        return WorkError(ErrorClass.INVALID, f"The cluster cannot read the image's name {image!r}; push it again.")
    # The kubelet repeats addresses that it was sent on to, and those may be signed.
    said = _QUERY.sub("", message).strip()[:MAX_REASON].rstrip(".")
    error_class = next((found for found, pattern in _CLASSES if pattern.search(said)), ErrorClass.TRANSIENT)
    advice = {
        ErrorClass.AUTH: " Look at the registry's own credentials: they need the right to pull.",
        ErrorClass.NOT_FOUND: " Push the version there again.",
    }.get(error_class, "")
    return WorkError(
        error_class, f"The cluster could not pull {image} ({reason}): {said or 'no reason given'}.{advice}"
    )
