"""The manifests give the workers what the code asks of the API, and nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.stopping import StopSignal
from tests.kubernetes.simulated import Asked, SimulatedApi
from workers.serving.backend import Start
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.backend import KubernetesBackend

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"


def documents(kind: str) -> Iterator[Any]:
    for path in sorted(MANIFESTS.glob("*.yaml")):
        yield from (one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == kind)


def given() -> set[Asked]:
    return {
        Asked(group, resource, verb, namespaced=True)
        for role in documents("Role")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_every_call_of_the_api_is_allowed_and_nothing_else(
    api: SimulatedApi,
    backend: KubernetesBackend,
    new_start: Callable[..., Start],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = new_start(network="isolated")
    backend.start(start, lambda _text: None, StopSignal())
    backend.observe([start.serving])
    backend.stop(start.serving)
    monkeypatch.setattr(backend_module, "YOUNG_SECONDS", -1)
    backend.clear([], set().intersection)
    # The API asks for `create` as well where an apply makes the object.
    made = {Asked(one.group, one.resource, "create", one.namespaced) for one in api.asked if one.verb == "patch"}
    assert api.asked | made == given()


def test_no_right_reaches_beyond_the_namespace() -> None:
    assert list(documents("ClusterRole")) == []
    assert list(documents("ClusterRoleBinding")) == []
