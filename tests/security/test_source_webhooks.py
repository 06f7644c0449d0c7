"""Webhooks of repositories elsewhere take no key: what strangers, replays and hostile payloads get from them."""

import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from sqlalchemy import func, select

from api.rate_limits import ProcessStorage, _rate_limits_of, rate_limits
from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, Job, SourceDelivery
from shared.encryption import keyring
from shared.git.webhook_secrets import make_webhook_secret
from shared.settings import settings
from tests.rows import OTHER_HASH, change, one_row
from tests.security.test_hidden_objects import ABSENT_ID
from tests.service.api.invocation import Api
from tests.silent_server import silent_server
from tests.source_webhooks import AFTER, FORM, SENDERS, Webhook, make_webhook, to_form
from tests.statements import recorded_statements


@pytest.fixture
def app(any_app: Flask, sqlite_installation: str) -> Flask:  # noqa: ARG001 - it must run first
    """The application with one kind of database: nothing here depends on it."""
    return any_app


@pytest.fixture
def hook(acme: Api) -> Webhook:
    """The webhook of `acme/Hello`, whose repository is elsewhere."""
    return make_webhook(acme, acme.make_algorithm("acme"))


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set limits of webhooks per minute."""

    def set_limits(**limits: int) -> None:
        for name, value in limits.items():
            monkeypatch.setenv(f"LONGSHORE_RATE_LIMIT_{name.upper()}", str(value))
        settings.cache_clear()
        _rate_limits_of.cache_clear()

    return set_limits


def started() -> int:
    with database().reading() as session:
        return session.scalars(select(func.count(Job.seq))).one()


@pytest.mark.parametrize("service", SENDERS)
def test_nobody_learns_which_algorithms_exist_or_have_a_webhook(
    hook: Webhook, acme: Api, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    acme.make_algorithm("acme", "Without")
    hosted = acme.make_algorithm("acme", "Hosted", source=None)
    change(one_row(Algorithm, name="Hosted"), webhook_secret=one_row(Algorithm, name="Hello").webhook_secret)
    compared: list[tuple[int, int]] = []
    genuine = hmac.compare_digest

    def compare(first: Any, second: Any) -> bool:
        compared.append((len(first), len(second)))
        return genuine(first, second)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    seen = set()
    for path in (
        hook.path,
        "/v1/algorithms/acme/Without",
        hosted,
        "/v1/algorithms/acme/Nothing",
        "/v1/algorithms/no/No",
    ):
        compared.clear()
        with recorded_statements(database()) as statements:
            answer = Webhook(hook.api, path, "x" * 43).deliver(service)
        assert answer.status_code == 404
        error = answer.get_json()["error"]
        message = error["message"].replace(path.removeprefix("/v1/algorithms/"), "IT")
        headers = tuple(sorted(set(answer.headers.keys())))
        seen.add((error["code"], message, headers, tuple(each.text for each in statements), tuple(compared)))
    assert len(seen) == 1, seen
    assert compared, "the signature of a delivery to no algorithm is checked too"
    assert started() == 0


def test_by_id_it_is_the_same(hook: Webhook) -> None:
    algorithm = one_row(Algorithm, owner="acme")
    messages = set()
    for algorithm_id in (algorithm.id, ABSENT_ID):
        answer = Webhook(hook.api, f"/v1/algorithms/{algorithm_id}", "wrong").deliver()
        assert answer.status_code == 404
        messages.add(answer.get_json()["error"]["message"].replace(algorithm_id, "IT"))
    assert len(messages) == 1


@pytest.mark.parametrize("service", SENDERS)
def test_the_secret_of_another_algorithm_is_none(hook: Webhook, acme: Api, rival: Api, service: str) -> None:
    others = [acme.make_algorithm("acme", "Other"), rival.make_algorithm("rival")]
    for manager, path in zip((acme, rival), others, strict=True):
        secret = make_webhook(manager, path).secret
        assert hook.deliver(service, secret=secret).status_code == 404
    assert started() == 0


def test_a_sealed_secret_in_another_row_does_not_open(hook: Webhook, acme: Api) -> None:
    other = acme.make_algorithm("acme", "Other")
    change(one_row(Algorithm, name="Other"), webhook_secret=one_row(Algorithm, name="Hello").webhook_secret)
    assert Webhook(hook.api, other, hook.secret).deliver().status_code == 404


def test_a_hosted_algorithm_takes_no_webhook_also_with_a_secret(hook: Webhook, acme: Api) -> None:
    hosted = acme.make_algorithm("acme", "Hosted", source=None)
    with database().writing() as session:
        algorithm = session.scalars(select(Algorithm).where(Algorithm.name == "Hosted")).one()
        secret = make_webhook_secret(keyring(), algorithm)
    assert Webhook(hook.api, hosted, secret).deliver().status_code == 404


@pytest.mark.parametrize("service", SENDERS)
def test_no_signature_and_no_secret_is_none(hook: Webhook, service: str) -> None:
    header = SENDERS[service].signature_header
    others = ["X-Hub-Signature", "X-Hub-Signature-256", "X-Gogs-Signature"]
    assert hook.deliver(service, without=[*others, header]).status_code == 404
    assert hook.deliver(service, secret="").status_code == 404
    assert hook.deliver(service, without=others, **{header.replace("-", "_"): ""}).status_code == 404


@pytest.mark.parametrize(
    "form",
    ["{hex}", "sha1={sha1}", "sha256={sha1}", "SHA256={hex}", "sha256= {hex}", "sha256={hex}0", "sha256={half}",
     "sha256=", "sha256={hex},sha256={hex}", "sha256={hex}\xff", "sha256=\xff\xfe", "sha512={hex}", "{secret}", "sha1=",
     "sha256={HEX}"],
)  # fmt: skip
@pytest.mark.parametrize("service", ["github", "bitbucket cloud"])
def test_a_signature_has_one_form(hook: Webhook, service: str, form: str) -> None:
    sender = SENDERS[service]
    body = json.dumps(sender.payload()).encode()
    digest = {name: hmac.new(hook.secret.encode(), body, name).hexdigest() for name in ("sha1", "sha256")}
    text = form.format(
        hex=digest["sha256"],
        HEX=digest["sha256"].upper(),
        half=digest["sha256"][:32],
        sha1=digest["sha1"],
        secret=hook.secret,
    )
    headers = {sender.signature_header.replace("-", "_"): text}
    assert hook.deliver(service, body, **headers).status_code == 404
    assert started() == 0


def test_a_key_is_no_signature(hook: Webhook, acme: Api, admin: Api) -> None:
    for key in (acme.key, admin.key):
        assert hook.deliver(secret="wrong", Authorization=f"Simple {key}").status_code == 404
    assert hook.deliver(Authorization="Basic nonsense").status_code == 204


@pytest.mark.parametrize(
    "path",
    [
        "/v1/algorithms/acme/Hello/compile?x=/scm/webhook",
        "/v1/jobs?/scm/webhook",
        "/v1/algorithms/acme/Hello/scm/status",
        "/v1/algorithms/acme/Hello/scm/webhook/secret",
        "/v1/algorithms/acme/Hello/scm/webhook/../../compile",
        "/v1/algorithms/acme/Hello/scm%2fwebhook/x",
        "/v1/x/scm/webhook",
    ],
)
def test_no_other_path_goes_without_a_key(hook: Webhook, path: str) -> None:
    hook.api.expect_refusal(401, 2002, "POST", path, {})
    hook.api.expect_refusal(401, 2002, "GET", path)


@pytest.mark.parametrize("service", SENDERS)
def test_an_old_delivery_under_a_new_id_starts_nothing(hook: Webhook, service: str) -> None:
    assert hook.deliver(service, delivery="1").status_code == 204
    assert hook.deliver(service, delivery="2").status_code == 202
    assert started() == 1


def test_an_old_delivery_in_the_form_of_another_service_starts_nothing(hook: Webhook) -> None:
    body = json.dumps(SENDERS["github"].payload()).encode()
    assert hook.deliver("github", body).status_code == 204
    assert hook.deliver("gitea", body).status_code == 202
    assert started() == 1


def test_who_replays_a_delivery_cannot_use_up_the_id_of_another(hook: Webhook) -> None:
    hook.deliver(delivery="1")
    hook.deliver(delivery="2")
    assert hook.deliver(payload=SENDERS["github"].payload(after=OTHER_HASH), delivery="2").status_code == 204


def test_after_a_rotation_nothing_old_is_taken(hook: Webhook, acme: Api) -> None:
    make_webhook(acme, hook.path)
    assert hook.deliver().status_code == 404


@pytest.mark.parametrize("service", SENDERS)
def test_what_is_not_signed_is_not_parsed(hook: Webhook, service: str) -> None:
    for body in (b"{", b"[" * 100_000, b"\xff", b"9" * 100_000):
        assert hook.deliver(service, body, secret="wrong").status_code == 404


def test_a_body_above_a_mebibyte_is_413_whoever_it_is_for(hook: Webhook) -> None:
    body = json.dumps({**SENDERS["github"].payload(), "padding": "x" * 1024**2}).encode()
    for path in (hook.path, "/v1/algorithms/acme/Nothing"):
        assert Webhook(hook.api, path, hook.secret).deliver(payload=body).status_code == 413
    exact = body[: -len(body) + 1024**2 - 2] + b'"}'
    assert len(exact) == 1024**2
    assert hook.deliver(payload=exact).status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"a":' * 150_000,
        b'{"ref":' + b"9" * 500_000 + b"}",
        b"NaN",
        b'{"ref": 1e999999}',
        b"\xef\xbb\xbf{}",
        b"[" + b"[]," * 300_000 + b"1]",
        b'{"ref":"\\ud800","after":"\\u0000"}',
        b"\x00",
        "\u202e".encode("utf-16"),
        b'{"push":{"changes":' + b"[" + b"{}," * 300_000 + b"{}]}}",
        b'{"changes":[null],"push":{"changes":[null]}}',
    ],
    ids=lambda body: repr(body[:8]),
)
def test_a_signed_payload_of_any_kind_is_no_error_of_ours(hook: Webhook, body: bytes) -> None:
    for service in SENDERS:
        assert hook.deliver(service, body).status_code in (202, 400)
    for service in ("github", "gitea"):
        form = urlencode({"payload": body}).encode()
        assert hook.deliver(service, form, content_type=FORM).status_code in (202, 400, 413)
    assert started() == 0


@pytest.mark.parametrize(
    ("service", "payload"),
    [
        ("github", b"no JSON"),
        ("github", b"[]"),
        ("github", b"null"),
        ("github", b""),
        ("github", {"ref": 1, "after": AFTER}),
        ("github", {"ref": "refs/heads/main", "after": "0d1a26e", "repository": {"default_branch": "main"}}),
        ("gitlab", {"ref": "refs/heads/main"}),
        ("gitea", {"ref": "refs/heads/main", "after": None}),
        ("bitbucket cloud", {"push": {"changes": {}}}),
        ("bitbucket cloud", {"push": {"changes": [{"new": {"type": "branch"}}]}}),
        ("bitbucket server", {"changes": [{"ref": "refs/heads/main"}]}),
        ("bitbucket server", {"changes": SENDERS["bitbucket server"].payload()["changes"] * 2001}),
    ],
)
def test_a_payload_that_is_none_is_400(hook: Webhook, service: str, payload: object) -> None:
    answer = hook.deliver(service, payload)
    assert answer.status_code == 400, answer.get_data(as_text=True)
    assert started() == 0


@pytest.mark.parametrize(
    ("service", "content_type", "body"),
    [
        ("github", "text/plain", None),
        ("github", "multipart/form-data", None),
        ("github", FORM, b"payload=%7B"),
        ("github", FORM, b"other=%7B%7D"),
        ("github", FORM, b"\xff"),
        ("gitlab", FORM, to_form(SENDERS["gitlab"].payload())),
    ],
)
def test_a_content_type_that_the_service_does_not_send_is_400(
    hook: Webhook, service: str, content_type: str, body: bytes | None
) -> None:
    assert hook.deliver(service, body, content_type=content_type).status_code == 400
    assert started() == 0


@pytest.mark.parametrize(
    "text", ["main\0", "\ud800", "\x1b]0;title\x07", "a\nb", "../..", "-x", "--upload-pack=x", "x" * 200_000, "\u202e"]
)
def test_a_hostile_branch_is_a_name_and_nothing_else(hook: Webhook, text: str) -> None:
    for service, sender in SENDERS.items():
        assert hook.deliver(service, sender.payload(ref=f"refs/heads/{text}")).status_code == 202
    assert started() == 0


@pytest.mark.parametrize("text", ["main\0", "\ud800", "\x1b[31m", "a\nb", "x" * 200_000, "\u202e"])
def test_a_hostile_default_branch_is_compiled_and_recorded_plain(hook: Webhook, text: str) -> None:
    payload = SENDERS["github"].payload(ref=f"refs/heads/{text}", default=text)
    assert hook.deliver("github", payload).status_code == 204
    branch = one_row(AuditEvent, action="scm.push").detail["branch"]
    assert branch.isprintable()
    assert len(branch) <= 500


@pytest.mark.parametrize(
    "commit", ["0d1a26e", "main", "HEAD", f"{AFTER}^", f"-{AFTER[1:]}", "g" * 40, "a" * 41, "a" * 9999]
)
def test_only_a_full_hash_is_a_commit(hook: Webhook, commit: str) -> None:
    for service, sender in SENDERS.items():
        assert hook.deliver(service, sender.payload(after=commit)).status_code == 400
    assert started() == 0


@pytest.mark.parametrize("service", SENDERS)
@pytest.mark.parametrize("identity", ["x" * 15_000, "\xff\xfe", "'; DROP TABLE jobs; --", "\x1b[0m"])
def test_the_id_of_a_delivery_may_be_anything(hook: Webhook, service: str, identity: str) -> None:
    assert [hook.deliver(service, delivery=identity).status_code for _ in range(2)] == [204, 202]
    with database().reading() as session:
        assert {len(digest) for digest in session.scalars(select(SourceDelivery.delivery))} == {64}


@pytest.mark.parametrize("event", ["x" * 15_000, "\xff", "\x1b[0m", "push\t"])
def test_the_name_of_an_event_may_be_anything(hook: Webhook, event: str) -> None:
    answer = hook.deliver(event=event)
    assert answer.status_code in (202, 204)
    if answer.status_code == 202:
        assert answer.get_json()["reason"].isprintable()
        assert len(answer.data) < 1000


@pytest.mark.parametrize("service", SENDERS)
def test_nothing_is_fetched_from_an_address_in_a_payload(hook: Webhook, service: str) -> None:
    with silent_server() as (address, connected):
        text = json.dumps(SENDERS[service].payload())
        for host in ("github.com", "gitlab.com", "gitea.example.com", "bitbucket.org", "bitbucket.example.com"):
            text = text.replace(host, address)
        assert hook.deliver(service, text.encode()).status_code == 204
        assert not connected.is_set()


def test_a_flood_is_refused_before_it_is_read(hook: Webhook, limit: Callable[..., None]) -> None:
    limit(source_webhooks=3)
    hostile = Webhook(hook.api, "/v1/algorithms/acme/Nothing", "wrong")
    answers = [hostile.deliver(payload=b"x" * 2 * 1024**2, X_Forwarded_For="198.51.100.7") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {413}
    with recorded_statements(database()) as statements:
        refused = hostile.deliver(payload=b"x" * 2 * 1024**2, X_Forwarded_For="198.51.100.7")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert statements == []
    assert hook.deliver(X_Forwarded_For="203.0.113.9").status_code == 204


def test_one_address_leaves_half_of_an_algorithms_deliveries_to_others(
    hook: Webhook, limit: Callable[..., None]
) -> None:
    limit(algorithm_webhooks=4)
    flood = [hook.deliver(secret="wrong", X_Forwarded_For="198.51.100.7").status_code for _ in range(6)]
    assert flood == [404, 404, 429, 429, 429, 429]
    assert hook.deliver(X_Forwarded_For="203.0.113.9").status_code == 204


def test_a_flood_from_many_addresses_is_limited_for_the_algorithm_and_its_address_by_id_is_free(
    hook: Webhook, limit: Callable[..., None]
) -> None:
    limit(algorithm_webhooks=4)
    flood = [hook.deliver(secret="wrong", X_Forwarded_For=f"198.51.100.{host}").status_code for host in range(6)]
    assert flood == [404] * 4 + [429] * 2
    by_id = Webhook(hook.api, f"/v1/algorithms/{one_row(Algorithm, owner='acme').id}", hook.secret)
    assert by_id.deliver(X_Forwarded_For="203.0.113.9").status_code == 204


def test_limits_are_the_same_for_what_does_not_exist(hook: Webhook, limit: Callable[..., None]) -> None:
    limit(algorithm_webhooks=2)
    for path in (hook.path, "/v1/algorithms/acme/Nothing"):
        stranger = Webhook(hook.api, path, "wrong")
        assert [stranger.deliver().status_code for _ in range(3)] == [404, 429, 429]


def test_counters_of_names_that_nothing_can_have_stay_small(hook: Webhook, limit: Callable[..., None]) -> None:
    limit(algorithm_webhooks=2)
    for character in "ab":
        Webhook(hook.api, f"/v1/algorithms/{character * 8000}/No", "wrong").deliver()
    storage = rate_limits()._local.storage
    assert isinstance(storage, ProcessStorage)
    counted = storage.storage
    assert max(len(name) for name in counted) < 300
    assert len(counted) == 5, "one of the address, two of each name"


def test_the_owners_limit_of_jobs_holds_for_webhooks(
    hook: Webhook, admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_MAX_QUEUED_JOBS_PER_OWNER", "2")
    settings.cache_clear()
    payload = SENDERS["github"].payload
    statuses = [hook.deliver(payload=payload(after=f"{number:040x}")).status_code for number in range(1, 5)]
    assert statuses == [204, 204, 429, 429]
    assert started() == 2
    assert admin.get("/v1/jobs")["results"]


def test_a_deleted_algorithm_takes_no_webhook_and_keeps_no_secret(hook: Webhook, acme: Api) -> None:
    algorithm = one_row(Algorithm, owner="acme")
    acme.delete(hook.path)
    assert hook.deliver().status_code == 404
    assert one_row(Algorithm, id=algorithm.id).webhook_secret is None
    acme.make_algorithm("acme")
    assert hook.deliver().status_code == 404, "its name belongs to another algorithm"


def test_only_a_manager_sees_the_status_and_makes_a_secret(app: Flask, hook: Webhook, admin: Api, rival: Api) -> None:
    for method, path in (("GET", f"{hook.path}/scm/status"), ("POST", f"{hook.path}/scm/webhook/secret")):
        rival.expect_refusal(404, 1001, method, path)
        Api(app, None).expect_refusal(401, 2002, method, path)
        assert admin.call(method, path).status_code == 200
    assert hook.deliver().status_code == 404, "the administrator rotated it"
