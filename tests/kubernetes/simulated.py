"""Simulate the Kubernetes API on a machine without a cluster. It does not prove that a real cluster behaves so.

It stores objects over HTTP as the API does (server-side apply by one manager, merge patches, label selectors,
generations, resource versions, evictions within disruption budgets), refuses fields that the client's own models do not
know, and records each verb on each resource. A test defines what controllers and kubelets do with
`kubelet`.
"""

import copy
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client as models
from kubernetes.client import ApiClient
from typing_extensions import override

Document = dict[str, Any]
KINDS = {
    "deployments": models.V1Deployment,
    "services": models.V1Service,
    "secrets": models.V1Secret,
    "networkpolicies": models.V1NetworkPolicy,
    "nodes": models.V1Node,
    "pods": models.V1Pod,
    "poddisruptionbudgets": models.V1PodDisruptionBudget,
    "endpointslices": models.V1EndpointSlice,
}


@dataclass(frozen=True, order=True)
class Request:
    """A request as RBAC sees it."""

    group: str
    resource: str
    verb: str
    namespaced: bool


class ApiError(Exception):
    """An error response of the API."""

    def __init__(
        self, status: int, message: str, *, cause: tuple[str, str] | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.details = {"causes": [{"reason": cause[0], "message": cause[1]}]} if cause else {}


@dataclass
class RequestPath:
    """The parts of a request's path."""

    group: str
    plural: str
    namespace: str
    name: str
    subresource: str

    @classmethod
    def of(cls, path: str) -> "RequestPath":
        parts = path.strip("/").split("/")
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = [*rest, "", ""][:3]
        return cls(group, plural, namespace, name, subresource)


@dataclass
class SimulatedApi:
    """The stored objects, and the requests so far."""

    objects: dict[tuple[str, str, str], Document] = field(default_factory=dict)
    requests: set[Request] = field(default_factory=set)
    bodies: list[Document] = field(default_factory=list)
    kubelet: Callable[["SimulatedApi", Document], None] = lambda _api, _deployment: None
    on_eviction: Callable[["SimulatedApi", Document], None] = lambda api, pod: api.remove(
        "pods", pod["metadata"]["name"]
    )
    """Called with a pod whose eviction was allowed."""
    on_answer: Callable[["SimulatedApi"], object] = lambda _api: None
    """Called after each request."""
    refuse: dict[str, ApiError] = field(default_factory=dict)
    """The error for every write of a kind, by its plural."""
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Verbs on resources that no role allows."""
    _version: int = 0
    _lock: Any = field(default_factory=threading.RLock)

    def put(self, plural: str, document: Document) -> Document:
        """Store an object, as a controller would."""
        meta = document["metadata"]
        self._version += 1
        meta.setdefault("generation", 1)
        meta.setdefault("uid", f"uid-{self._version}")
        meta["resourceVersion"] = str(self._version)
        self.objects[plural, meta.get("namespace", ""), meta["name"]] = document
        return document

    def all(self, plural: str) -> list[Document]:
        return [one for (kind, _, _), one in sorted(self.objects.items()) if kind == plural]

    def remove(self, plural: str, name: str) -> None:
        for key in [key for key in self.objects if key[0] == plural and key[2] == name]:
            del self.objects[key]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, content_type: str) -> Document:
        with self._lock:
            place = RequestPath.of(path)
            verb = {"GET": "get" if place.name else "list", "POST": "create"}.get(method, method.lower())
            resource = "/".join(filter(None, (place.plural, place.subresource)))
            self.requests.add(Request(place.group, resource, verb, bool(place.namespace)))
            if (verb, resource) in self.forbidden:
                raise ApiError(
                    403, f'User "longshore" cannot {verb} resource "{resource}" in API group "{place.group}"'
                )
            if method != "GET" and place.plural in self.refuse:
                raise self.refuse[place.plural]
            if verb == "list":
                return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": self._selected(place, query)}
            if place.subresource == "eviction":
                return self._evict(place, body)
            key = (place.plural, place.namespace, place.name)
            if verb == "patch":
                self.bodies.append(body)
                return self._patched(key, body, content_type)
            if key not in self.objects:
                raise ApiError(404, f'{place.plural} "{place.name}" not found')
            if verb == "delete":
                removed = self.objects.pop(key)
                self._cascade(place)
                if place.plural in ("services", "pods"):  # the API returns the deleted object of these kinds
                    return removed
                return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            return self.objects[key]

    def _selected(self, place: RequestPath, query: dict[str, list[str]]) -> list[Document]:
        pairs = [part.split("=") for part in query.get("labelSelector", [""])[0].split(",") if part]
        fields = [part.split("=") for part in query.get("fieldSelector", [""])[0].split(",") if part]
        return [
            one
            for one in self.all(place.plural)
            if place.namespace in ("", one["metadata"].get("namespace", ""))
            and all(one["metadata"].get("labels", {}).get(name) == value for name, value in pairs)
            and all(one["spec"].get(name.removeprefix("spec.")) == value for name, value in fields)
        ]

    def _patched(self, key: tuple[str, str, str], body: Document, content_type: str) -> Document:
        plural, namespace, name = key
        known = self.objects.get(key)
        if "apply-patch" in content_type:
            refuse_unknown_fields(plural, body)
            kept = {} if known is None else {"status": known.get("status", {})}
            changed = {**copy.deepcopy(body), **kept}
            changed["metadata"] = {**changed["metadata"], "namespace": namespace, "name": name}
        else:
            if known is None:
                raise ApiError(404, f'{plural} "{name}" not found')
            seen = body.get("metadata", {}).get("resourceVersion", known["metadata"]["resourceVersion"])
            if seen != known["metadata"]["resourceVersion"]:
                raise ApiError(409, "the object has been modified; please apply your changes to the latest version")
            changed = merged(known, body)
        before = known["metadata"]["generation"] if known else 0
        moved = known is None or known.get("spec") != changed.get("spec")
        changed["metadata"]["generation"] = before + 1 if moved else before
        stored = self.put(plural, changed)
        if plural == "deployments":
            self.kubelet(self, stored)
        return stored

    def _evict(self, place: RequestPath, body: Document) -> Document:
        pod = self.objects.get((place.plural, place.namespace, place.name))
        if pod is None:
            raise ApiError(404, f'pods "{place.name}" not found')
        if body["deleteOptions"]["preconditions"]["uid"] != pod["metadata"]["uid"]:
            raise ApiError(409, "Precondition failed: UID in precondition does not match")
        for budget in self.all("poddisruptionbudgets"):
            selected = budget["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            if budget["metadata"]["namespace"] == place.namespace and selected:
                self._spend(budget)
        self.on_eviction(self, pod)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _spend(self, budget: Document) -> None:
        status = budget["status"]
        if not status["disruptionsAllowed"]:
            cause = f"The disruption budget {budget['metadata']['name']} needs 1 healthy pods and has 1 currently"
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise ApiError(429, message, cause=("DisruptionBudget", cause))
        status["disruptionsAllowed"] -= 1

    def _cascade(self, place: RequestPath) -> None:
        if place.plural == "deployments":
            for pod in self.all("pods"):
                if pod["metadata"].get("labels", {}).get("longshore.io/version") in place.name:
                    self.remove("pods", pod["metadata"]["name"])


def merged(old: Any, new: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return copy.deepcopy(new)
    result = copy.deepcopy(old)
    for name, value in new.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name, {}), value)
    return result


def refuse_unknown_fields(plural: str, body: Document) -> None:
    """Refuse fields that are not in the client's model, which is generated from the API's OpenAPI document."""
    model: Any = KINDS[plural]
    if ApiClient().sanitize_for_serialization(model.from_dict(copy.deepcopy(body))) != body:
        raise ApiError(400, f"strict decoding error: unknown field in {body['kind']}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: SimulatedApi

    def _answer(self) -> None:
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        retry_after = 0
        try:
            content_type = self.headers.get("Content-Type") or ""
            status, document = 200, self.api.answer(self.command, split.path, parse_qs(split.query), body, content_type)
        except ApiError as refusal:
            status = refusal.status
            document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
            document |= {"message": str(refusal), "details": refusal.details}
            retry_after = refusal.retry_after
        raw = json.dumps(document).encode()
        self.api.on_answer(self.api)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        with suppress(ConnectionError):  # a client whose timeout is over
            self.end_headers()
            self.wfile.write(raw)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server's names

    @override
    def log_message(self, *_arguments: object) -> None:
        pass


def serve(api: SimulatedApi) -> ThreadingHTTPServer:
    """Serve the API on a loopback port, in its own thread, until the server is shut down."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
