"""The registries respond, reject wrong credentials, and are removed at the end."""

from pathlib import Path
from typing import Any

import pytest
import requests

from dev.services.processes import port_answers
from dev.services.registry import PrivateRegistry, private_registry
from tests.service.dev.helpers import processes_naming


def may_upload(url: str, name: str, password: str) -> int:
    """Return the status of starting an upload, with a token if the registry has a token server."""
    upload = f"{url}/v2/some/image/blobs/uploads/"
    refused = requests.post(upload, timeout=30)
    assert refused.status_code == 401
    challenge = refused.headers["WWW-Authenticate"]
    if challenge.startswith("Basic "):
        return requests.post(upload, auth=(name, password), timeout=30).status_code
    wanted = dict(part.replace('"', "").split("=", 1) for part in challenge.removeprefix("Bearer ").split('",'))
    answer = requests.get(
        wanted["realm"],
        params={"service": wanted["service"], "scope": wanted["scope"]},
        auth=(name, password),
        timeout=30,
    )
    if answer.status_code != 200:
        return answer.status_code
    return requests.post(upload, headers={"Authorization": f"Bearer {answer.json()['token']}"}, timeout=30).status_code


def test_a_registry_knows_its_users(registry: PrivateRegistry) -> None:
    assert registry.users == {"pusher": "secret"}
    assert requests.get(f"{registry.url}/v2/", auth=("pusher", "secret"), timeout=30).status_code == 200
    assert may_upload(registry.url, "pusher", "secret") == 202
    assert may_upload(registry.url, "pusher", "wrong") == 401


def test_two_registries_are_two(registry: PrivateRegistry, second_registry: PrivateRegistry) -> None:
    assert registry.host != second_registry.host
    assert may_upload(second_registry.url, "pusher", "secret") == 202


def test_a_token_registry_lets_the_writer_write_and_the_reader_read(token_registry: PrivateRegistry) -> None:
    users = token_registry.users
    assert may_upload(token_registry.url, "writer", users["writer"]) == 202
    assert may_upload(token_registry.url, "reader", users["reader"]) == 401
    assert may_upload(token_registry.url, "writer", users["reader"]) == 401
    assert may_upload(token_registry.url, "nobody", "") == 401


def test_a_token_says_what_was_granted(token_registry: PrivateRegistry) -> None:
    realm = requests.get(f"{token_registry.url}/v2/", timeout=30).headers["WWW-Authenticate"].split('"')[1]
    form = {"grant_type": "password", "username": "reader", "password": token_registry.users["reader"]}
    scope = {"scope": "repository:some/image:pull,push"}
    token = requests.post(realm, data=form | scope, timeout=30).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(f"{token_registry.url}/v2/some/image/tags/list", headers=headers, timeout=30).status_code == 404
    assert (
        requests.get(f"{token_registry.url}/v2/other/image/tags/list", headers=headers, timeout=30).status_code == 401
    )
    assert requests.post(realm, data={"grant_type": "refresh_token"}, timeout=30).status_code == 400


def test_a_tls_registry_is_trusted_by_those_who_have_its_authority(
    tls_registry: PrivateRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # requests prefers these to nothing, but not to an explicit file.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    authority = tmp_path / "authority.pem"
    authority.write_text(str(tls_registry.authority_pem))

    def status(**trust: Any) -> int:
        return requests.get(f"{tls_registry.url}/v2/", auth=("pusher", "secret"), timeout=30, **trust).status_code

    assert status(verify=str(authority)) == 200
    with pytest.raises(requests.exceptions.SSLError):
        status()


def test_a_stopped_registry_leaves_no_process_and_comes_back_as_it_was(tmp_path: Path) -> None:
    with private_registry(tmp_path) as first:
        port = int(first.host.partition(":")[2])
        assert processes_naming(str(tmp_path))
    assert processes_naming(str(tmp_path)) == []
    assert not port_answers(port)
    with private_registry(tmp_path, port=port) as again:
        assert again.url == first.url
        assert may_upload(again.url, "pusher", "secret") == 202
