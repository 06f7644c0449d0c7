"""The API of a cluster: how it is reached, how objects are applied to it, and what its refusals mean for work."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kubernetes.client import (
    ApiClient,
    AppsV1Api,
    Configuration,
    CoreV1Api,
    DiscoveryV1Api,
    NetworkingV1Api,
    PolicyV1Api,
)
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError

from shared.errors import ErrorClass, WorkError

FIELD_MANAGER = "longshore"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
REQUEST_SECONDS = 30
"""A request that the API has not answered by then counts as not answered."""

Found = TypeVar("Found")


class Cluster:
    """One cluster, and the namespace in it that algorithms run in. Threads may share it."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.core = CoreV1Api(client)
        self.apps = AppsV1Api(client)
        self.networking = NetworkingV1Api(client)
        self.discovery = DiscoveryV1Api(client)
        self.policy = PolicyV1Api(client)

    @classmethod
    def connect(cls, namespace: str) -> "Cluster":
        """The cluster that KUBECONFIG names; without it, the one that this process runs in.

        Raises:
            WorkError: there is neither (unavailable).
        """
        configuration = Configuration()
        with answering("be reached"):
            named = os.environ.get("KUBECONFIG")
            if named is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                load_incluster_config(client_configuration=configuration)
            else:
                load_kube_config(config_file=named, client_configuration=configuration, persist_config=False)
        return cls(ApiClient(configuration), namespace)

    def apply(self, patch: Callable[..., Found], document: Any) -> Found:
        """Have an object of the namespace be as the document says, whether it is there or not (server-side apply).

        `patch` is the method of the client for its kind. Fields that somebody else has set since are taken back.

        Raises:
            WorkError: the cluster does not answer, or refuses the object.
        """
        with answering(f"have {document.kind} {document.metadata.name}"):
            return patch(
                document.metadata.name,
                self.namespace,
                document,
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type=APPLY,
                _request_timeout=REQUEST_SECONDS,
            )


@contextmanager
def answering(what: str, *, rights: str = "deploy/kubernetes/rights.yaml") -> Iterator[None]:
    """Whatever the API refuses in the block, or does not answer, becomes a `WorkError`.

    `what` ends the sentence "The Kubernetes cluster cannot …"; `rights` is the manifest that allows it.
    """
    try:
        yield
    except ApiException as error:
        raise _refused(what, error, rights) from None
    except ConfigException as error:
        message = (
            f"No Kubernetes cluster is configured ({error}): set KUBECONFIG, or run the worker in the cluster with "
            "the service account of deploy/kubernetes."
        )
        raise WorkError(ErrorClass.UNAVAILABLE, message) from None
    except (HTTPError, OSError) as error:
        message = f"The Kubernetes cluster cannot {what}: its API does not answer ({type(error).__name__})."
        raise WorkError(ErrorClass.UNAVAILABLE, message) from None


def if_there(ask: Callable[..., Found], *names: str, **options: Any) -> Found | None:
    """What the client's method answers; None where the object is not there."""
    try:
        return ask(*names, _request_timeout=REQUEST_SECONDS, **options)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


_MEANINGS = {
    401: (ErrorClass.UNAVAILABLE, "Look at Longshore's own credentials for it: KUBECONFIG, or the service account."),
    403: (ErrorClass.UNAVAILABLE, "Apply {rights}, which has the rights that Longshore needs for it."),
    404: (ErrorClass.UNAVAILABLE, "Apply deploy/kubernetes/namespace.yaml, which makes the namespace."),
    409: (ErrorClass.TRANSIENT, ""),
    429: (ErrorClass.THROTTLED, ""),
}


def _refused(what: str, error: ApiException, rights: str) -> WorkError:
    said, status = said_by(error), error.status or 0
    refusal = f"The Kubernetes cluster cannot {what}: {said}."
    if "exceeded quota" in said:  # a 403 that no right would change
        return WorkError(ErrorClass.UNAVAILABLE, refusal)
    otherwise = ErrorClass.INVALID if 400 <= status < 500 else ErrorClass.UNAVAILABLE
    error_class, advice = _MEANINGS.get(status, (otherwise, ""))
    return WorkError(error_class, f"{refusal} {advice.format(rights=rights)}".strip())


def said_by(error: ApiException) -> str:
    """The message of the API's `Status`, else what HTTP says."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = None
    return str(message or f"{error.status} {error.reason}").rstrip(".")
