"""Every start asks the registry, so an image that was deleted there does not run."""

from types import SimpleNamespace
from typing import cast

import pytest

from dev.services.registry import PrivateRegistry
from shared.cancellation import CancelToken
from shared.db.models import InstanceState, JobState
from shared.errors import ErrorClass
from tests.rows import change, fresh, make_registry
from tests.service.workers.lying_proxy import lying_proxy
from tests.service.workers.serving.conftest import Served, call, job_of, reconciled
from workers.images.engine_transfer import save_image
from workers.images.factory import image_store
from workers.serving.reconcile import stop_all

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]


def at(host: str) -> PrivateRegistry:
    return cast("PrivateRegistry", SimpleNamespace(url=f"http://{host}"))


def test_a_second_start_asks_the_registry_and_costs_no_bytes(served: Served, registry: PrivateRegistry) -> None:
    with lying_proxy(registry.host) as proxy:
        served.pushed_to(at(proxy.host))
        first = served.started()
        stop_all()
        proxy.requests.clear()
        again = served.started()
    assert (fresh(first).state, again.state) == (InstanceState.STOPPED, InstanceState.READY)
    assert [line for line in proxy.requests if line.endswith(f"/manifests/{again.digest}")]
    assert not [line for line in proxy.requests if "/blobs/" in line]


def test_what_the_engine_has_and_the_registry_lost_does_not_run(served: Served, registry: PrivateRegistry) -> None:
    with lying_proxy(registry.host) as proxy:
        served.pushed_to(at(proxy.host))
        assert served.started().state == InstanceState.READY
        stop_all()
        proxy.says = "gone"
        instance = served.started()
    assert (instance.state, job_of(instance).error_class) == (InstanceState.FAILED, ErrorClass.NOT_FOUND)
    assert "push it there again" in instance.message


def test_an_image_that_the_registry_lost_does_not_run(served: Served, registry: PrivateRegistry) -> None:
    with lying_proxy(registry.host) as proxy:
        served.pushed_to(at(proxy.host))
        proxy.says = "gone"
        instance = served.started()
    assert (instance.state, job_of(instance).error_class) == (InstanceState.FAILED, ErrorClass.NOT_FOUND)
    assert proxy.host in instance.message


def test_a_registry_that_is_away_is_asked_again(served: Served, registry: PrivateRegistry) -> None:
    with lying_proxy(registry.host) as proxy:
        served.pushed_to(at(proxy.host))
    instance = served.started()
    assert (instance.state, job_of(instance).state) == (InstanceState.PENDING, JobState.QUEUED)
    assert proxy.host in instance.message


def test_what_runs_from_the_store_ends_when_the_first_registry_is_recorded(served: Served) -> None:
    stop = CancelToken()
    with image_store().use(stop) as use:
        image = save_image(use, str(served.build.image_id), stop)
        change(served.build, manifest_digest=image.manifest.descriptor.digest)
        served.build = fresh(served.build)
        instance = served.started()
    assert (instance.state, instance.registry_id) == (InstanceState.READY, None), instance.message
    assert call(instance, "hello")["result"] == "hello"
    assert reconciled(instance).state == InstanceState.READY
    make_registry()
    draining = reconciled(instance)
    assert draining.state == InstanceState.DRAINING
    assert "since the first registry was recorded" in draining.message
    assert reconciled(instance).state == InstanceState.STOPPED
