"""Use a real cluster: apply the manifests, get the rights of their account, and call algorithms from outside."""

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes.client import (
    ApiClient,
    AuthenticationV1TokenRequest,
    CoreV1Api,
    V1TokenRequestSpec,
)
from kubernetes.utils import create_from_dict
from kubernetes.watch import Watch
from typing_extensions import override

from shared.db.models import Instance
from workers.kubernetes.cluster import Cluster
from workers.runner import PORT
from workers.serving.kubernetes.labels import INSTANCE

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
NAMESPACE = "longshore"
"""The namespace in the manifests."""
ACCOUNT = "longshore"
TOKEN_SECONDS = 3600
CALL_SECONDS = 30
GONE_SECONDS = 60
"""More than a pod's grace period."""


def make(client: ApiClient, namespace: str, *files: str) -> None:
    """Create the objects of these manifests in the namespace; unknown fields are refused."""
    for document in (one for file in files for one in yaml.safe_load_all((MANIFESTS / file).read_text())):
        if document["kind"] == "Namespace":
            document["metadata"]["name"] = namespace
        else:
            document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
        create_from_dict(client, document, namespace=namespace, field_validation="Strict")


def kubeconfig_of_the_account(client: ApiClient, namespace: str) -> dict[str, Any]:
    """Return a kubeconfig for the same API with the rights of Longshore's service account."""
    request = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=None, expiration_seconds=TOKEN_SECONDS))
    token = CoreV1Api(client).create_namespaced_service_account_token(ACCOUNT, namespace, request).status.token
    api = client.configuration
    cluster = {"server": api.host, "insecure-skip-tls-verify": not api.verify_ssl}
    if api.ssl_ca_cert:
        cluster["certificate-authority"] = api.ssl_ca_cert
    if api.tls_server_name:
        cluster["tls-server-name"] = api.tls_server_name
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "account",
        "contexts": [{"name": "account", "context": {"cluster": "named", "user": ACCOUNT}}],
        "clusters": [{"name": "named", "cluster": cluster}],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
    }


@dataclass(frozen=True)
class Reply:
    """A response through the API server's proxy."""

    status: int
    body: bytes

    @property
    def result(self) -> Any:
        """The value that the algorithm returned."""
        assert self.status == http.client.OK, self
        answer = json.loads(self.body)
        assert "result" in answer, answer
        return answer["result"]


def call(cluster: Cluster, name: str, given: Any) -> Reply:
    """Call a Service from outside of the cluster, through the API server's proxy."""
    client = cluster.core.api_client
    asked = client.param_serialize(
        "POST",
        "/api/v1/namespaces/{namespace}/services/{service}/proxy/",
        path_params={"namespace": cluster.namespace, "service": f"http:{name}:{PORT}"},
        query_params=[("timeout", str(CALL_SECONDS))],
        header_params={"Content-Type": "application/json"},
        body=given,
        auth_settings=["BearerToken"],
    )
    answered = client.call_api(*asked, _request_timeout=2 * CALL_SECONDS)
    return Reply(answered.status, answered.read())


def wait_until_gone(cluster: Cluster, instance: Instance, *names: str) -> None:
    """Wait until these pods of an instance are gone, terminating ones included; without names, all its pods."""
    selected: dict[str, Any] = {"label_selector": f"{INSTANCE}={instance.id}"}
    found = cluster.core.list_namespaced_pod(cluster.namespace, **selected)
    remaining = {pod.metadata.name for pod in found.items if not names or str(pod.metadata.name) in names}
    events = Watch()
    for event in events.stream(
        cluster.core.list_namespaced_pod, cluster.namespace, **selected,
        resource_version=found.metadata.resource_version, timeout_seconds=GONE_SECONDS,
    ) if remaining else ():  # fmt: skip
        if event["type"] == "DELETED":
            remaining.discard(event["object"].metadata.name)
        if not remaining:
            events.stop()
    assert not remaining


class Caller(threading.Thread):
    """Calls repeatedly, one call after the other, and collects the replies.

    503 is a call that did not begin (`longshore calls` retries it): its runner was being
    stopped, or was gone already.
    """

    def __init__(self, ask: Callable[[], Reply]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self._changed = threading.Condition()
        self._over = False
        self.replies = list[Reply]()
        self.failed: Exception | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over = True
        self.join()

    @override
    def run(self) -> None:
        try:
            while not self._over:
                reply = self._ask()
                if reply.status != http.client.SERVICE_UNAVAILABLE:
                    self._keep(reply)
        except Exception as error:  # noqa: BLE001 - the test raises it
            self.failed = error
            with self._changed:
                self._changed.notify_all()

    def _keep(self, reply: Reply) -> None:
        with self._changed:
            self.replies.append(reply)
            self._changed.notify_all()

    def wait_for(self, result: object, *, seconds: float = 60) -> None:
        """Wait until the algorithm returns this."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.failed or (self.replies and self.replies[-1].result == result), timeout=seconds
            )
        assert self.failed is None, self.failed

    def end(self) -> list[Any]:
        """Stop calling; return all results."""
        self._over = True
        self.join()
        assert self.failed is None, self.failed
        return [reply.result for reply in self.replies]
