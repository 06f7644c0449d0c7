"""Jobs and rows of instances on the simulated API: one image of a version runs, and its row says which."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.commands.serve import ensure_instance
from shared.db.engine import database
from shared.db.models import Algorithm, Build, Instance, InstanceState, Registry, Version
from shared.instances.states import DesiredState
from shared.pulls.resolution import pin_pull, resolve_pull
from tests.environment import longshore_environment
from tests.git_service import make_algorithm
from tests.kubernetes import kubelets
from tests.kubernetes.simulated import SimulatedApi
from tests.rows import (
    DIGEST,
    OTHER_DIGEST,
    build_commit,
    change,
    end_push,
    fresh,
    make_claim,
    make_registry,
    one_row,
    push,
)
from workers.jobs.executor import run_job
from workers.serving import start
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.start import ServeWork


@pytest.fixture
def build(backend: KubernetesBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """A succeeded build, in an installation that runs images on the simulated API."""
    with longshore_environment(tmp_path / "data", serving="kubernetes"):
        monkeypatch.setattr(start, "serving_backend", lambda: backend)
        yield build_commit(make_algorithm())


def pushed(build: Build, digest: str) -> Registry:
    registry = make_registry()
    end_push(make_claim(push(build, registry)), digest)
    return registry


def rows(build: Build) -> tuple[Algorithm, Version]:
    return one_row(Algorithm, id=build.algorithm_id), one_row(Version, id=build.version_id)


def needed_instance(build: Build) -> Instance:
    """Return the instance that calls need now, which is created if there is none."""
    with database().writing() as session:
        algorithm, version = rows(build)
        found = DesiredState.of(algorithm, version, resolve_pull(session, algorithm, version))
        assert found is not None
        return ensure_instance(session, found)[0]


def started(build: Build) -> Instance:
    instance = needed_instance(build)
    run_job(instance.job_id, ServeWork)
    return fresh(instance)


def pin(build: Build, registry: Registry) -> None:
    with database().writing() as session:
        pin_pull(session, *rows(build), registry.id)


def running_image(api: SimulatedApi) -> str:
    (deployment,) = api.all("deployments")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_an_image_that_was_replaced_is_started_anew_when_calls_go_to_it_again(api: SimulatedApi, build: Build) -> None:
    production = pushed(build, DIGEST)
    first = started(build)
    pushed(build, OTHER_DIGEST)
    second = started(build)
    assert (first.state, second.state) == (InstanceState.READY, InstanceState.READY)
    assert (fresh(first).state, fresh(first).message) == (InstanceState.STOPPED, "Another image took its place.")
    assert running_image(api) == second.image
    pin(build, production)
    third = started(build)
    assert third.id != first.id
    assert running_image(api) == third.image == first.image
    assert fresh(second).state == InstanceState.STOPPED


def test_nobody_is_sent_to_an_image_while_another_replaces_it(api: SimulatedApi, build: Build) -> None:
    pushed(build, DIGEST)
    first, seen = started(build), list[InstanceState]()

    def kubelet(api: SimulatedApi, deployment: dict[str, object]) -> None:
        seen.append(fresh(first).state)
        kubelets.runs(api, deployment)

    api.kubelet = kubelet
    pushed(build, OTHER_DIGEST)
    started(build)
    assert seen == [InstanceState.STOPPED]


def test_a_start_that_calls_want_no_more_replaces_nothing(api: SimulatedApi, build: Build) -> None:
    production = pushed(build, DIGEST)
    first = started(build)
    pushed(build, OTHER_DIGEST)
    late = needed_instance(build)
    pin(build, production)
    assert run_job(late.job_id, ServeWork)
    late = fresh(late)
    assert (late.state, late.message) == (InstanceState.STOPPED, "Calls go to another image now.")
    assert running_image(api) == first.image
    assert fresh(first).state == InstanceState.READY


def test_a_start_of_what_was_deleted_meanwhile_starts_nothing(api: SimulatedApi, build: Build) -> None:
    pushed(build, DIGEST)
    instance = needed_instance(build)
    change(rows(build)[0], deleted_at=1)
    assert run_job(instance.job_id, ServeWork)
    assert (fresh(instance).state, fresh(instance).message) == (InstanceState.STOPPED, "The algorithm was deleted.")
    assert api.all("deployments") == []
