import base64
import json
from typing import Any

import pytest

from shared.registry.address import RegistryAddress
from shared.registry.credentials import Credentials, InvalidCredentialsError, from_registry_auth


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def document(**auths: dict[str, Any]) -> str:
    return json.dumps({"auths": {key.replace("_", "."): value for key, value in auths.items()}})


def test_the_password_is_not_in_any_representation() -> None:
    credentials = Credentials("pusher", "hunter2")
    assert "hunter2" not in f"{credentials!r} {credentials}"


@pytest.mark.parametrize(
    "text",
    [
        encoded("pusher:hun:ter2"),
        f" {encoded('pusher:hun:ter2')}\n",
        document(r_example={"auth": encoded("pusher:hun:ter2")}),
        document(r_example={"username": "pusher", "password": "hun:ter2"}),
        encoded(document(r_example={"auth": encoded("pusher:hun:ter2")})),
    ],
)
def test_every_form_gives_the_same_credentials(text: str) -> None:
    assert from_registry_auth(text) == Credentials("pusher", "hun:ter2")


def test_base64_broken_into_lines_is_read() -> None:
    long = "p" * 100
    text = base64.encodebytes(f"pusher:{long}".encode()).decode()
    assert "\n" in text.strip()
    assert from_registry_auth(text).password == long


def test_an_identity_token_is_used_as_the_password() -> None:
    credentials = from_registry_auth(document(r_example={"auth": encoded("00000:"), "identitytoken": "refresh"}))
    assert credentials.is_identity_token
    assert credentials.password == "refresh"


def test_the_entry_is_chosen_by_the_registrys_host() -> None:
    text = json.dumps(
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": encoded("hub:one")},
                "R.example:443": {"auth": encoded("mine:two")},
                "not an address": {"auth": encoded("other:three")},
            }
        }
    )
    assert from_registry_auth(text, RegistryAddress.parse("r.example/team")) == Credentials("mine", "two")
    assert from_registry_auth(text, RegistryAddress.parse("docker.io/team")) == Credentials("hub", "one")


def test_credentials_for_another_registry_are_not_used_for_this_one() -> None:
    with pytest.raises(InvalidCredentialsError, match=r"no entry for r\.example"):
        from_registry_auth(document(other_example={"auth": encoded("a:hunter2")}), RegistryAddress.parse("r.example"))


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("x" * 4097, "longer than 4096"),
        ("hunter2!", "neither"),
        (encoded("hunter2"), "no colon"),
        (encoded("user:"), "not empty"),
        (encoded(":hunter2"), "not empty"),
        (encoded("us\ner:hunter2"), "control characters"),
        (base64.b64encode(b"\xff\xfe:hunter2").decode(), "neither"),
        ("{hunter2", "JSON"),
        ("{}", "auths"),
        ('{"auths": []}', "auths"),
        ('{"auths": {"a.example": "hunter2"}}', "not an object"),
        ('{"auths": {"a.example": {}}}', "neither 'auth'"),
        ('{"auths": {"a.example": {"auth": "hunter2!"}}}', "'auth' is not base64"),
        (document(a_example={"auth": "x"}, b_example={"auth": "x"}), "several registries"),
        ('{"auths": ' + "[" * 2000, "JSON"),
    ],
)
def test_an_invalid_document_is_refused_without_repeating_it(text: str, because: str) -> None:
    with pytest.raises(InvalidCredentialsError) as refusal:
        from_registry_auth(text)
    assert because in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
