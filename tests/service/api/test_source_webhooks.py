"""Webhooks of repositories elsewhere: a push to the default branch is compiled, whichever service reports it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import func, select

from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, Job, JobKind, SourceDelivery
from shared.encryption import keyring, new_key
from shared.git.deliveries import delete_old_deliveries
from shared.key_rotation import rotate
from shared.settings import settings
from tests.concurrency import run_concurrently
from tests.git_service import WorkTree
from tests.plain_git_server import plain_git_server
from tests.rows import OTHER_HASH, change, columns_of, one_row
from tests.service.api.invocation import Api
from tests.source_webhooks import AFTER, FORM, SENDERS, ZEROS, Webhook, make_webhook, to_form

STATES_DEFAULT = ("github", "gitlab", "gitea")
"""The services whose payloads name the default branch."""


@pytest.fixture
def hook(acme: Api) -> Webhook:
    return make_webhook(acme, acme.make_algorithm("acme"))


def jobs() -> list[Job]:
    with database().reading() as session:
        return list(session.scalars(select(Job).where(Job.kind == JobKind.COMPILE).order_by(Job.seq)))


def compiled() -> list[str]:
    return [str(job.git_hash) for job in jobs()]


@pytest.mark.parametrize("service", SENDERS)
def test_a_push_to_the_default_branch_is_compiled(hook: Webhook, acme: Api, service: str) -> None:
    answer = hook.deliver(service)
    assert (answer.status_code, answer.data) == (204, b"")
    (job,) = jobs()
    assert (job.git_hash, job.owner) == (AFTER, "acme")
    assert answer.headers["X-Job-Id"] == job.id
    assert acme.get(answer.headers["Location"])["kind"] == "compile"
    event = one_row(AuditEvent, action="scm.push")
    assert (event.owner, event.detail["commit"], event.detail["branch"]) == ("acme", AFTER, "main")
    assert event.detail["job_id"] == job.id


@pytest.mark.parametrize("service", SENDERS)
def test_other_pushes_are_not(hook: Webhook, service: str) -> None:
    for ref, after in (
        ("refs/tags/v1", AFTER),
        ("refs/heads/main", ZEROS),
        ("refs/heads/other", AFTER),
        ("refs/heads/a/main", AFTER),
    ):
        answer = hook.deliver(service, SENDERS[service].payload(ref=ref, after=after))
        assert answer.status_code == 202, (ref, after)
        assert "default branch" in answer.get_json()["reason"]
    assert compiled() == []


@pytest.mark.parametrize("service", STATES_DEFAULT)
def test_the_default_branch_is_the_one_that_the_payload_names(hook: Webhook, service: str) -> None:
    payload = SENDERS[service].payload
    assert hook.deliver(service, payload(default="trunk")).status_code == 202
    assert hook.deliver(service, payload(ref="refs/heads/trunk", default="trunk")).status_code == 204
    assert compiled() == [AFTER]


@pytest.fixture
def repositories(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: ARG001 - order
    """The URL of a git server with `hello.git`, whose default branch is `trunk`, and `empty.git`."""
    tree = WorkTree(tmp_path / "tree", branch="trunk")
    tree.git("init", "--quiet", "--bare", str(tmp_path / "root" / "empty.git"))
    tree.commit()
    tree.git("branch", "main")
    tree.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root" / "hello.git"))
    monkeypatch.setenv("LONGSHORE_SOURCE_ALLOW_HTTP", "true")
    settings.cache_clear()
    with plain_git_server(tmp_path / "root") as url:
        yield url


@pytest.mark.parametrize("service", ["bitbucket cloud", "bitbucket server"])
def test_the_repository_is_asked_where_the_payload_names_no_default_branch(
    acme: Api, repositories: str, service: str
) -> None:
    hook = make_webhook(acme, acme.make_algorithm("acme", source={"repository_https_url": f"{repositories}/hello.git"}))
    assert hook.deliver(service).status_code == 202
    assert hook.deliver(service, SENDERS[service].payload(ref="refs/heads/trunk")).status_code == 204


def test_a_push_of_several_branches_compiles_the_default_one(hook: Webhook) -> None:
    payload = SENDERS["bitbucket server"].payload()
    payload["changes"] += SENDERS["bitbucket server"].payload(ref="refs/heads/other", after=OTHER_HASH)["changes"]
    assert hook.deliver("bitbucket server", payload).status_code == 204
    assert compiled() == [AFTER]


@pytest.mark.parametrize("service", ["github", "gitea"])
def test_a_payload_in_a_form_is_read(hook: Webhook, service: str) -> None:
    body = to_form(SENDERS[service].payload())
    assert hook.deliver(service, body, content_type=FORM).status_code == 204
    assert hook.deliver(service, body, content_type=FORM).status_code == 202
    assert compiled() == [AFTER]


@pytest.mark.parametrize(
    ("service", "event", "payload"),
    [
        ("github", "ping", {"zen": "Design for failure.", "hook_id": 1, "hook": {"type": "Repository"}}),
        ("github", "pull_request", {"action": "opened", "number": 1}),
        ("gitlab", "Tag Push Hook", SENDERS["gitlab"].payload(ref="refs/tags/v1")),
        ("gitea", "create", {"sha": AFTER, "ref": "main", "ref_type": "branch"}),
        ("bitbucket server", "diagnostics:ping", {"test": True}),
        ("bitbucket cloud", "repo:fork", {"fork": {}}),
    ],
)
def test_another_event_is_answered_with_the_reason(hook: Webhook, service: str, event: str, payload: object) -> None:
    answer = hook.deliver(service, payload, event=event)
    assert answer.status_code == 202
    assert event in answer.get_json()["reason"]
    assert compiled() == []


@pytest.mark.parametrize("service", SENDERS)
def test_a_delivery_that_is_sent_again_is_done_once(hook: Webhook, service: str) -> None:
    assert hook.deliver(service, delivery="1").status_code == 204
    again = hook.deliver(service, delivery="1")
    assert (again.status_code, again.get_json()["reason"]) == (202, "This delivery was received before.")
    later = SENDERS[service].payload(after=OTHER_HASH)
    assert hook.deliver(service, later).status_code == 204
    assert compiled() == [AFTER, OTHER_HASH]


def test_a_delivery_without_an_id_is_known_by_its_content(hook: Webhook) -> None:
    for status in (204, 202):
        assert hook.deliver("github", without=["X-GitHub-Delivery"]).status_code == status
    assert compiled() == [AFTER]


def test_the_same_delivery_several_times_at_once_is_one_compile(hook: Webhook) -> None:
    answers = run_concurrently(*([lambda: hook.deliver(delivery="1")] * 6))
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [204]
    assert compiled() == [AFTER]


def test_a_delivery_that_could_not_be_enqueued_can_be_sent_again(
    hook: Webhook, acme: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_MAX_QUEUED_JOBS_PER_OWNER", "1")
    settings.cache_clear()
    acme.post(f"{hook.path}/compile", {"commitSha": OTHER_HASH})
    full = hook.deliver(delivery="1")
    assert (full.status_code, "Retry-After" in full.headers) == (429, True)
    (waiting,) = jobs()
    acme.delete(f"/v1/jobs/{waiting.id}")
    assert hook.deliver(delivery="1").status_code == 204


def test_deliveries_are_forgotten_after_weeks(hook: Webhook) -> None:
    hook.deliver(delivery="1")
    with database().reading() as session:
        rows = list(session.scalars(select(SourceDelivery)))
    assert len(rows) == 2, "its id and its content"
    change(rows[0], created_at=rows[0].created_at - 31 * 24 * 3600 * 1000)
    with database().writing() as session:
        delete_old_deliveries(session)
        assert session.scalar(select(func.count(SourceDelivery.seq))) == 1


def test_builds_on_push_can_be_turned_off(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_BUILD_ON_PUSH", "false")
    settings.cache_clear()
    answer = hook.deliver()
    assert answer.status_code == 202
    assert "LONGSHORE_BUILD_ON_PUSH" in answer.get_json()["reason"]


def test_the_webhook_of_a_whole_organization_compiles_its_own_repository_only(acme: Api) -> None:
    own = {"repository_https_url": "https://github.com/Team/Hello.git"}
    hook = make_webhook(acme, acme.make_algorithm("acme", source=own))
    payload = SENDERS["github"].payload()
    other = json.loads(json.dumps(payload).replace("team/hello", "team/other"))
    answer = hook.deliver("github", other)
    assert (answer.status_code, "another repository" in answer.get_json()["reason"]) == (202, True)
    assert hook.deliver("github", payload).status_code == 204


# The secret, and the state of the connection.


def test_the_secret_is_shown_when_it_is_made_and_when_it_is_rotated(acme: Api, app: Flask) -> None:
    path = acme.make_algorithm("acme")
    algorithm = one_row(Algorithm, owner="acme")
    first = acme.get(f"{path}/scm/status")
    assert first["repository_webhook_url"] == f"http://localhost/v1/algorithms/{algorithm.id}/scm/webhook"
    assert "repository_webhook_secret" not in acme.get(f"{path}/scm/status")
    rotated = acme.post(f"/v1/algorithms/{algorithm.id}/scm/webhook/secret")
    assert rotated["repository_webhook_url"] == first["repository_webhook_url"]
    assert "repository_webhook_secret" not in acme.get(f"{path}/scm/status")
    old = Webhook(Api(app, None), path, first["repository_webhook_secret"])
    assert old.deliver().status_code == 404
    new = Webhook(Api(app, None), f"/v1/algorithms/{algorithm.id}", rotated["repository_webhook_secret"])
    assert new.deliver().status_code == 204


def test_a_secret_is_stored_sealed_and_its_making_is_audited(acme: Api, admin: Api) -> None:
    path = acme.make_algorithm("acme")
    made = [acme.get(f"{path}/scm/status"), acme.post(f"{path}/scm/webhook/secret")]
    events = admin.get("/v1/audit?action=scm.webhook_secret")["results"]
    assert [event["detail"]["rotated"] for event in events] == [True, False]
    stored = str(columns_of(one_row(Algorithm, owner="acme"))) + str(events) + str(acme.get(path))
    assert not any(one["repository_webhook_secret"] in stored for one in made)


def test_the_status_without_its_body_makes_no_secret(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    assert acme.call("HEAD", f"{path}/scm/status").status_code == 200
    assert "repository_webhook_secret" in acme.get(f"{path}/scm/status")


def test_another_repository_has_another_secret(acme: Api, hook: Webhook) -> None:
    acme.put(hook.path, {"source": {"repository_https_url": "https://localhost:1/team/hello.git"}})
    assert hook.deliver().status_code == 204, "the same repository"
    acme.put(hook.path, {"source": {"repository_https_url": "https://localhost:1/team/other.git"}})
    assert hook.deliver("gitlab").status_code == 404
    assert "repository_webhook_secret" in acme.get(f"{hook.path}/scm/status")


def test_a_hosted_repository_is_active_and_has_no_webhook(acme: Api) -> None:
    path = acme.make_algorithm("acme", source=None)
    assert acme.get(f"{path}/scm/status") == {"scm_connection_status": "active"}
    acme.expect_refusal(409, 2015, "POST", f"{path}/scm/webhook/secret")


@pytest.mark.parametrize(
    ("name", "status"), [("hello.git", "active"), ("empty.git", "active"), ("absent.git", "deploy_key_error")]
)
def test_the_status_is_what_the_repository_answers(acme: Api, repositories: str, name: str, status: str) -> None:
    path = acme.make_algorithm("acme", source={"repository_https_url": f"{repositories}/{name}"})
    shown = acme.get(f"{path}/scm/status")
    assert shown["scm_connection_status"] == status
    assert ("message" in shown) == (status != "active")


def test_a_repository_where_nobody_answers_is_no_fault_of_the_caller(acme: Api) -> None:
    shown = acme.get(f"{acme.make_algorithm('acme')}/scm/status")
    assert shown["scm_connection_status"] == "provider_internal_error"
    assert "cannot be reached" in shown["message"]


def test_a_rotation_of_the_keys_keeps_the_secret(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.environ["LONGSHORE_SECRET_KEYS"]
    monkeypatch.setenv("LONGSHORE_SECRET_KEYS", f"{new_key()},{old}")
    settings.cache_clear()
    keyring.cache_clear()
    assert rotate(database(), keyring()).undecryptable == []
    assert str(one_row(Algorithm, owner="acme").webhook_secret).startswith(keyring().primary_key_id)
    assert hook.deliver().status_code == 204


def test_the_image_goes_to_the_default_registry_as_after_a_git_push(hook: Webhook, admin: Api) -> None:
    registry_id = admin.make_registry(default=True)
    answer = hook.deliver()
    (push,) = admin.get(answer.headers["Location"])["children"]
    assert one_row(Job, id=push["id"]).registry_id == registry_id
