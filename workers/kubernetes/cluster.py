"""Connect to a cluster's API, apply and change objects, and turn the API's errors into work errors.

Read names, labels and annotations of the API's objects.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from kubernetes.client import (
    ApiClient,
    AppsV1Api,
    Configuration,
    CoreV1Api,
    DiscoveryV1Api,
    NetworkingV1Api,
    PolicyV1Api,
    V1ObjectMeta,
)
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from typing_extensions import override
from urllib3.exceptions import HTTPError

from shared.errors import ErrorClass, WorkError

REQUEST_TIMEOUT_SECONDS = 30
CLASS_AND_ADVICE: dict[int, tuple[ErrorClass, str]] = {
    HTTPStatus.UNAUTHORIZED: (
        ErrorClass.UNAVAILABLE,
        "Check Longshore's own credentials for it: KUBECONFIG, or the service account.",
    ),
    HTTPStatus.FORBIDDEN: (ErrorClass.UNAVAILABLE, "Apply {rights}, which has the rights that Longshore needs for it."),
    HTTPStatus.NOT_FOUND: (
        ErrorClass.UNAVAILABLE,
        "Apply deploy/kubernetes/namespace.yaml, which makes the namespace.",
    ),
    HTTPStatus.CONFLICT: (ErrorClass.TRANSIENT, ""),
    HTTPStatus.TOO_MANY_REQUESTS: (ErrorClass.THROTTLED, ""),
}
"""By HTTP status: the class of the work error, and what an operator should do."""


class KubernetesObject(Protocol):
    """An object of the API."""

    metadata: V1ObjectMeta | None


Resource = TypeVar("Resource")
Changed = TypeVar("Changed", bound=KubernetesObject)


class ClusterClient(ApiClient):
    """Limits the time of every request, which the API's methods by default do not."""

    @override
    def call_api(self, *arguments: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or REQUEST_TIMEOUT_SECONDS
        return super().call_api(*arguments, **options)


class Cluster:
    """A client of one cluster, and the namespace that algorithms run in. Threads may share it."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._client = client
        self.core = CoreV1Api(client)
        self.apps = AppsV1Api(client)
        self.networking = NetworkingV1Api(client)
        self.discovery = DiscoveryV1Api(client)
        self.policy = PolicyV1Api(client)

    @classmethod
    def connect(cls, namespace: str) -> "Cluster":
        """Use the cluster that KUBECONFIG names; without it, the one that this process runs in.

        Raises:
            WorkError: neither is configured (unavailable).
        """
        configuration = Configuration()
        with cluster_errors("be reached"):
            kubeconfig = os.environ.get("KUBECONFIG")
            if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                load_incluster_config(client_configuration=configuration)
            else:
                load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
        return cls(ClusterClient(configuration), namespace)

    def api_addresses(self) -> list[str]:
        """Return the addresses of the API's host; none if its name does not resolve here."""
        host = urlsplit(self._client.configuration.host).hostname or ""
        with suppress(OSError, UnicodeError):
            return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
        return []

    def apply(self, patch: Callable[..., Resource], document: Any) -> Resource:
        """Create or update an object of the namespace (server-side apply); return it as the API has it.

        `patch` is the client's method for the object's kind. Fields of the document that somebody else changed are
        set back.

        Raises:
            WorkError: the cluster does not respond, or refuses the object.
        """
        with cluster_errors(f"apply {document.kind} {document.metadata.name}"):
            return patch(
                document.metadata.name,
                self.namespace,
                document,
                field_manager="longshore",
                force=True,
                _content_type="application/apply-patch+yaml",
            )


@contextmanager
def cluster_errors(action: str, *, rights: str = "deploy/kubernetes/rights.yaml") -> Iterator[None]:
    """Turn errors of the API and of the connection to it into work errors.

    `action` completes the sentence "The Kubernetes cluster cannot …"; `rights` is the manifest that allows the action.

    Raises:
        WorkError: for each of those errors.
    """
    try:
        yield
    except ApiException as error:
        raise _work_error(action, error, rights) from None
    except ConfigException as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"No Kubernetes cluster is configured ({error}): set KUBECONFIG, or run the worker in the cluster with "
            "the service account of deploy/kubernetes.",
        ) from None
    except (HTTPError, OSError) as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"The Kubernetes cluster cannot {action}: its API does not respond ({type(error).__name__}).",
        ) from None


def if_exists(call: Callable[..., Resource], *names: str) -> Resource | None:
    """Call a method of the client; return None if the object does not exist."""
    try:
        return call(*names)
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise


def change_object(
    read: Callable[..., Changed],
    patch: Callable[..., Changed],
    *names: str,
    change: Callable[[Changed], dict[str, Any] | None],
) -> Changed | None:
    """Change an object without overwriting what others change at the same time.

    `change` returns the merge patch for the object as it is now, or None to leave it as it is. It is called again if
    the object changed before the patch arrived. Return the object as it is then; None if it does not exist.
    """
    while True:
        current = if_exists(read, *names)
        body = None if current is None else change(current)
        if current is None or body is None:
            return current
        # The API refuses the patch with 409 if the object has another version by then.
        metadata = {**body.get("metadata", {}), "resourceVersion": metadata_of(current).resource_version}
        try:
            return patch(*names, {**body, "metadata": metadata}, _content_type="application/merge-patch+json")
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            if error.status != HTTPStatus.CONFLICT:
                raise


def status_message(error: ApiException) -> str:
    """Return the message of the API's `Status` object, or else the HTTP status."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = None
    return str(message or f"{error.status} {error.reason}").rstrip(".")


def _work_error(action: str, error: ApiException, rights: str) -> WorkError:
    reason, status = status_message(error), error.status or 0
    message = f"The Kubernetes cluster cannot {action}: {reason}."
    if "exceeded quota" in reason:  # status 403 too, but more rights would not help
        return WorkError(ErrorClass.UNAVAILABLE, message)
    default = ErrorClass.INVALID if 400 <= status < 500 else ErrorClass.UNAVAILABLE
    error_class, advice = CLASS_AND_ADVICE.get(status, (default, ""))
    return WorkError(error_class, f"{message} {advice.format(rights=rights)}".strip())


def metadata_of(resource: KubernetesObject) -> V1ObjectMeta:
    """Return the metadata, which every object that the API returns has."""
    if resource.metadata is None:
        raise ValueError("an object without metadata")
    return resource.metadata


def name_of(resource: KubernetesObject) -> str:
    return str(metadata_of(resource).name)


def label_of(resource: KubernetesObject, key: str) -> str:
    """Return the value of a label; empty if the object does not have it."""
    return str((metadata_of(resource).labels or {}).get(key, ""))


def annotation_of(resource: KubernetesObject, key: str) -> str:
    """Return the value of an annotation; empty if the object does not have it."""
    return str((metadata_of(resource).annotations or {}).get(key, ""))


def is_terminating(resource: KubernetesObject) -> bool:
    """Return whether the object is being deleted; a pod then has its grace period left."""
    return metadata_of(resource).deletion_timestamp is not None
