"""`/v1/webhooks`."""

import base64
from typing import Any

import pytest

from shared.db.models import Webhook
from shared.encryption import Keyring, keyring
from shared.key_rotation import rotate
from shared.webhooks.signing import decrypt_secret, key_of
from tests.rows import one_row
from tests.service.api.invocation import Api
from tests.service.webhook_receiver import webhook_receiver
from workers.maintenance.deliver_webhooks import deliver

HOOK = {"url": "https://hooks.example.com/longshore"}
GIVEN = "whsec_" + base64.b64encode(b"k" * 24).decode()


def test_a_webhook_is_recorded_and_its_secret_shown_once(admin: Api) -> None:
    made = admin.post("/v1/webhooks", {**HOOK, "name": "chat", "events": ["push.failed", "push.stalled"]})
    secret = made.pop("secret")
    assert len(key_of(secret)) == 32
    assert (made["events"], made["enabled"]) == (["push.failed", "push.stalled"], True)
    assert admin.get(f"/v1/webhooks/{made['id']}") == made
    assert admin.get("/v1/webhooks") == [made]
    row = one_row(Webhook, id=made["id"])
    assert secret not in row.secret
    assert decrypt_secret(keyring(), row) == secret


def test_a_given_secret_is_taken_and_can_be_changed(admin: Api) -> None:
    made = admin.post("/v1/webhooks", {**HOOK, "secret": GIVEN})
    assert made["secret"] == GIVEN
    other = "whsec_" + base64.b64encode(b"o" * 24).decode()
    assert "secret" not in admin.put(f"/v1/webhooks/{made['id']}", {"secret": other})
    assert decrypt_secret(keyring(), one_row(Webhook, id=made["id"])) == other


def test_what_is_left_out_of_a_change_stays(admin: Api) -> None:
    made = admin.post("/v1/webhooks", {**HOOK, "name": "chat", "events": ["push.*"]})
    changed = admin.put(f"/v1/webhooks/{made['id']}", {"enabled": False})
    assert (changed["url"], changed["name"], changed["events"]) == (HOOK["url"], "chat", ["push.*"])
    assert changed["enabled"] is False
    assert admin.put(f"/v1/webhooks/{made['id']}", {"name": None, "enabled": True})["name"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": "hooks.example.com"},
        {"url": "http://hooks.example.com/"},
        {"url": "ftp://hooks.example.com/"},
        {"url": "https://user:open-sesame@hooks.example.com/"},
        {"url": "https://169.254.169.254/latest/meta-data"},
        {"url": "https://metadata.google.internal/"},
        {"url": "https://hooks.example.com/#part"},
        {"url": "https://hooks.example.com:port/"},
        {"url": "https://A*"},
        {"url": "https://hooks_.example.com/"},
        {"url": "https://hooks.example.com/{id}"},
        {**HOOK, "events": []},
        {**HOOK, "events": ["push.exploded"]},
        {**HOOK, "events": ["nothing.*"]},
        {**HOOK, "secret": "open-sesame"},
        {**HOOK, "secret": "whsec_" + base64.b64encode(b"short").decode()},
        {**HOOK, "enabled": "yes"},
    ],
)
def test_what_cannot_be_one_is_refused(admin: Api, body: dict[str, Any]) -> None:
    message = admin.expect_refusal(400, 2015, "POST", "/v1/webhooks", body)
    assert "open-sesame" not in message
    assert admin.get("/v1/webhooks") == []


def test_a_plain_target_on_this_machine_is_taken_and_tried(admin: Api) -> None:
    with webhook_receiver() as receiver:
        made = admin.post("/v1/webhooks", {"url": receiver.url})
        delivery = admin.post(f"/v1/webhooks/{made['id']}/test")
        assert (delivery["type"], delivery["state"]) == ("ping", "pending")
        deliver()
        assert receiver.received[0].verified(made["secret"])["type"] == "longshore.ping"
        listed = admin.get(f"/v1/webhooks/{made['id']}/deliveries?state=delivered")["results"]
        assert [(each["id"], each["last_status"]) for each in listed] == [(delivery["id"], 204)]
        again = admin.post(f"/v1/webhooks/{made['id']}/deliveries/{delivery['id']}/retry")
        assert (again["state"], again["attempts"]) == ("pending", 0)
        path = f"/v1/webhooks/{made['id']}/deliveries/{delivery['id']}/retry"
        admin.expect_refusal(409, 2015, "POST", path)
        deliver()
        assert len(receiver.received) == 2


def test_a_deleted_or_disabled_webhook_is_told_nothing_that_waited(admin: Api) -> None:
    with webhook_receiver() as receiver:
        for end in (("DELETE", None), ("PUT", {"enabled": False})):
            made = admin.post("/v1/webhooks", {"url": receiver.url})
            admin.post(f"/v1/webhooks/{made['id']}/test")
            admin.fine(end[0], f"/v1/webhooks/{made['id']}", end[1])
            deliver()
        assert receiver.received == []
        admin.expect_refusal(409, 2015, "POST", f"/v1/webhooks/{made['id']}/test")


def test_only_administrators_have_to_do_with_them(admin: Api, acme: Api) -> None:
    made = admin.post("/v1/webhooks", HOOK)
    path = f"/v1/webhooks/{made['id']}"
    for method, target, body in (
        ("POST", "/v1/webhooks", HOOK),
        ("GET", "/v1/webhooks", None),
        ("GET", path, None),
        ("PUT", path, {}),
        ("DELETE", path, None),
        ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None),
    ):
        acme.expect_refusal(403, 2001, method, target, body)
    admin.expect_refusal(404, 5004, "GET", "/v1/webhooks/none")


def test_secrets_are_sealed_again_when_keys_rotate(admin: Api) -> None:
    made = admin.post("/v1/webhooks", HOOK)
    from shared.db.engine import database

    old = keyring()
    both = Keyring({"fresh": b"f" * 32, old.primary_key_id: old._keys[old.primary_key_id]})
    assert rotate(database(), both).undecryptable == []
    only_new = Keyring({"fresh": b"f" * 32})
    assert decrypt_secret(only_new, one_row(Webhook, id=made["id"])) == made["secret"]
