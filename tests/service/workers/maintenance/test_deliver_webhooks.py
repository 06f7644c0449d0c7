"""Deliveries of webhooks: which events, signatures, retries, and no delay for other work."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat
from sqlalchemy import select
from standardwebhooks.webhooks import WebhookVerificationError

from shared.commands.cancel import cancel_job
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import DeliveryState, ImagePush, Registry, Webhook, WebhookDelivery
from shared.encryption import keyring
from shared.errors import ErrorClass
from shared.jobs.stalls import requeue_lost
from shared.registries.circuit_breaker import pause, resume
from shared.registry.credentials import Credentials
from shared.webhooks.signing import encrypt_secret, new_secret
from tests.concurrency import TIMEOUT_SECONDS, run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    build_commit,
    change,
    compile_commit,
    database_time,
    end_badly,
    end_push,
    fresh,
    is_delayed,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.service.webhook_receiver import Receiver, webhook_receiver
from workers.maintenance.deliver_webhooks import deliver
from workers.maintenance.sweep import sweep

pytestmark = pytest.mark.usefixtures("installation", "broker")

SECRET = new_secret()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver() as running:
        yield running


def webhook(receiver: Receiver, *events: str, **columns: object) -> Webhook:
    made = Webhook(id=str(uuid.uuid4()), url=receiver.url, events=list(events) or ["*"], **columns)
    made.secret = encrypt_secret(keyring(), made.id, SECRET)
    with database().writing() as session:
        session.add(made)
    return made


def events(receiver: Receiver) -> list[dict[str, Any]]:
    return [received.verified(SECRET) for received in receiver.received]


def types(receiver: Receiver) -> list[str]:
    return [event["type"].removeprefix("longshore.") for event in events(receiver)]


def deliveries() -> list[WebhookDelivery]:
    with database().reading() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.seq)))


def due_now() -> None:
    for delivery in deliveries():
        if delivery.state == DeliveryState.PENDING:
            change(delivery, next_attempt_at=now_ms() - 1)


def test_a_push_is_told_as_a_signed_cloud_event(receiver: Receiver) -> None:
    webhook(receiver, "push.*")
    algorithm = make_algorithm("acme")
    job = push(build_commit(algorithm), make_registry(), Credentials("pusher", "open sesame"))
    end_push(make_claim(job))
    deliver()
    (received,) = receiver.received
    message = HTTPMessage(headers=received.headers, body=received.body)
    event = from_structured(message, JSONFormat())
    assert event.get_type() == "longshore.push.succeeded"
    assert event.get_subject() == f"acme/Hello@{job.git_hash}"
    assert event.get_id() == received.headers["webhook-id"] == deliveries()[0].id
    data = event.get_data()
    assert isinstance(data, dict)
    assert (data["status"], data["digest"], data["job_id"]) == ("succeeded", DIGEST, job.id)
    assert (data["algorithm"], data["git_hash"], data["registry_id"]) == ("acme/Hello", job.git_hash, job.registry_id)
    assert b"sesame" not in received.body
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60
    assert received.verified(SECRET)["id"] == event.get_id()
    with pytest.raises(WebhookVerificationError):
        received.verified(new_secret())
    assert [delivery.state for delivery in deliveries()] == [DeliveryState.DELIVERED]
    deliver()
    assert len(receiver.received) == 1


def test_each_thing_that_happens_has_its_event(receiver: Receiver) -> None:
    webhook(receiver)
    registry = make_registry()
    build = build_commit(make_algorithm())
    end_badly(make_claim(push(build, registry)), ErrorClass.TRANSIENT)
    old = one_row(ImagePush, registry_id=registry.id)
    end_badly(make_claim(push(build, registry)))
    push(build, registry)
    last = push(build, registry)
    with database().writing() as session:
        cancel_job(session, session.get_one(type(last), last.seq))
    assert one_row(ImagePush, id=old.id).state == "cancelled"
    end_badly(make_claim(compile_commit(make_algorithm()).job))
    with database().writing() as session:
        pause(session, session.get_one(Registry, registry.seq), "Maintenance.")
        resume(session, session.get_one(Registry, registry.seq))
    deliver()
    assert sorted(types(receiver)) == sorted([
        "build.succeeded", "push.retrying", "push.superseded", "push.failed", "push.superseded", "push.cancelled",
        "build.failed", "registry.paused", "registry.resumed",
    ])  # fmt: skip


@pytest.mark.parametrize("kind", ["unclaimed", "lost", "no-progress"])
def test_a_stall_is_told_with_its_kind(receiver: Receiver, kind: str) -> None:
    webhook(receiver, "push.stalled")
    job = push(build_commit(make_algorithm()), make_registry())
    if kind == "unclaimed":
        change(job, created_at=now_ms() - 3_600_000)
        sweep()
    elif kind == "no-progress":
        make_claim(job)
        change(one_row(ImagePush, id=job.push_id), progressed_at=now_ms() - 3_600_000)
        sweep()
    else:
        claim = make_claim(job)
        lose_lease(job)
        with database().writing() as session:
            requeue_lost(session, job.id, claim=claim.number, max_losses=5)
    deliver()
    (event,) = events(receiver)
    assert (event["data"]["stall"], event["data"]["status"]) == (kind, "stalled")
    assert event["data"]["status_message"] == one_row(ImagePush, id=job.push_id).message


def test_only_what_was_asked_for_is_told(receiver: Receiver) -> None:
    webhook(receiver, "push.failed", "longshore.registry.*")
    webhook(receiver, "push.failed", enabled=False)
    registry = make_registry()
    build = build_commit(make_algorithm())
    end_push(make_claim(push(build, registry)))
    end_badly(make_claim(push(build, registry)))
    with database().writing() as session:
        pause(session, session.get_one(Registry, registry.seq), "Maintenance.")
    deliver()
    assert sorted(types(receiver)) == ["push.failed", "registry.paused"]


def test_what_did_not_happen_is_not_told(receiver: Receiver) -> None:
    webhook(receiver)
    job = push(build_commit(make_algorithm()), make_registry())
    before = len(deliveries())
    with suppress(RuntimeError), database().writing() as session:
        cancel_job(session, session.get_one(type(job), job.seq))
        raise RuntimeError
    assert len(deliveries()) == before


def test_a_target_that_fails_is_tried_again_later_each_time_and_given_up_at_last(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_WEBHOOK_DELAYS", "5,600")
    settings.cache_clear()
    receiver.status = 500
    webhook(receiver, "registry.*")
    with database().writing() as session:
        pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    for minimum_ms, maximum_ms in ((0, 5_000), (5_000, 600_000)):
        began = database_time()
        deliver()
        (delivery,) = deliveries()
        assert (delivery.state, delivery.last_status) == (DeliveryState.PENDING, 500)
        assert is_delayed(delivery.next_attempt_at, began, minimum_ms, maximum_ms)
        due_now()
    deliver()
    (delivery,) = deliveries()
    assert (delivery.state, delivery.attempts, delivery.last_error) == (
        DeliveryState.FAILED,
        3,
        "127.0.0.1 answered 500.",
    )
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len({received.body for received in receiver.received}) == 1


def test_a_target_says_when_to_come_back(receiver: Receiver) -> None:
    receiver.status, receiver.response_headers = 429, {"Retry-After": "300"}
    webhook(receiver, "registry.*")
    with database().writing() as session:
        pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    began = database_time()
    deliver()
    assert is_delayed(deliveries()[0].next_attempt_at, began, 300_000, 300_000)


def test_a_target_that_is_gone_is_told_nothing_more(receiver: Receiver) -> None:
    receiver.status = 410
    made = webhook(receiver, "registry.*")
    for _ in range(2):
        with database().writing() as session:
            pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    deliver()
    assert {delivery.state for delivery in deliveries()} == {DeliveryState.FAILED}
    assert (fresh(made).enabled, "410" in str(fresh(made).disabled_reason)) == (False, True)


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.response_headers = 302, {"Location": receiver.url}
    webhook(receiver, "registry.*")
    with database().writing() as session:
        pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    deliver()
    assert (len(receiver.received), deliveries()[0].state) == (1, DeliveryState.PENDING)


def test_a_forbidden_address_is_not_told(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.net.address_rules import webhook_networks
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_WEBHOOK_NETWORKS", "0.0.0.0/0,!127.0.0.0/8")
    settings.cache_clear()
    webhook_networks.cache_clear()
    webhook(receiver, "registry.*")
    with database().writing() as session:
        pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    deliver()
    assert receiver.received == []
    assert "LONGSHORE_WEBHOOK_NETWORKS" in str(deliveries()[0].last_error)


def test_senders_at_once_send_everything_once(receiver: Receiver) -> None:
    webhook(receiver, "registry.*")
    for _ in range(6):
        with database().writing() as session:
            pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    run_concurrently(deliver, deliver, deliver)
    deliver()
    assert len(receiver.received) == len({received.headers["webhook-id"] for received in receiver.received}) == 6


def test_a_slow_target_holds_up_neither_the_sweep_nor_a_second_sender(receiver: Receiver) -> None:
    webhook(receiver, "registry.*")
    with database().writing() as session:
        pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    receiver.release.clear()
    with ThreadPoolExecutor(1) as other:
        sending = other.submit(deliver)
        assert receiver.request_received.wait(TIMEOUT_SECONDS)
        deliver()  # the other process has the lease, so this one returns immediately
        sweep()
        assert not sending.done()
        receiver.release.set()
        sending.result(TIMEOUT_SECONDS)
    assert deliveries()[0].state == DeliveryState.DELIVERED


def test_a_sender_that_died_leaves_its_turn_and_its_deliveries_to_the_next(receiver: Receiver) -> None:
    from shared.db.models import PeriodicRun
    from shared.jobs.worker_processes import acquire_delivery_lease
    from shared.webhooks.deliveries import take_due_deliveries

    webhook(receiver, "registry.*")
    with database().writing() as session:
        pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    with database().writing() as session:
        assert acquire_delivery_lease(session, seconds=60) is not None
        assert len(take_due_deliveries(session, limit=10, hold_seconds=60)) == 1
    deliver()
    assert receiver.received == []
    change(one_row(PeriodicRun, name="delivery"), at=now_ms() - 1)
    due_now()
    deliver()
    assert len(receiver.received) == 1


def test_what_ended_long_ago_is_forgotten(receiver: Receiver) -> None:
    webhook(receiver, "registry.*")
    for _ in range(2):
        with database().writing() as session:
            pause(session, session.get_one(Registry, make_registry().seq), "Maintenance.")
    deliver()
    old, kept = deliveries()
    change(old, finished_at=now_ms() - 8 * 24 * 3_600_000)
    deliver()
    assert [delivery.id for delivery in deliveries()] == [kept.id]
    assert json.loads(kept.body)["type"] == "longshore.registry.paused"
