"""Repositories in configured systems (SCMs): what a create or update says of one is obeyed or refused."""

import json
from typing import Any

import pytest

from shared.db.models import Algorithm
from shared.encryption import keyring
from shared.git.sources import decrypt_source_credentials
from shared.settings import settings
from tests.rows import one_row
from tests.service.api.invocation import ELSEWHERE, Api

SCMS = [
    {"id": "gh", "provider": "github", "name": "GitHub"},
    {"id": "gl", "provider": "gitlab", "name": "Ours", "urls": {"web": "https://gitlab.example.com/"}},
    {"id": "bb", "provider": "bitbucket", "name": "Server", "urls": {"web": "https://bitbucket.example.com"}},
    {"id": "cloud", "provider": "bitbucket-cloud", "name": "Cloud"},
    {"id": "off", "provider": "github", "name": "Former", "enabled": False},
]
LABEL = {"label": "Hello"}
REPOSITORY = {"scm": "gh", "repository_owner": "team", "repository_name": "hello"}
PAIR = {"username": "git", "password": "open sesame"}


@pytest.fixture(autouse=True)
def _scms(installation: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - it must run first
    monkeypatch.setenv("LONGSHORE_SCMS", json.dumps(SCMS))
    settings.cache_clear()


def create(api: Api, source: dict[str, Any], **fields: Any) -> Any:
    return api.post("/v1/algorithms/acme", {"name": "Hello", "details": LABEL, "source": source, **fields})


def refusal(api: Api, source: dict[str, Any], **fields: Any) -> str:
    body = {"name": "Hello", "details": LABEL, "source": source, **fields}
    return api.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", body)


def credentials() -> tuple[str, str] | None:
    return decrypt_source_credentials(keyring(), one_row(Algorithm, owner="acme"))


def test_the_systems_are_listed(acme: Api) -> None:
    results = {one["id"]: one for one in acme.get("/v1/scms")["results"]}
    assert list(results) == ["internal", "gh", "gl", "bb", "cloud", "off"]
    assert results["internal"] == {
        "id": "internal", "name": "Longshore", "provider": "internal", "default": True, "enabled": True,
    }  # fmt: skip
    assert results["gh"]["urls"] == {
        "web": "https://github.com", "api": "https://api.github.com", "ssh": "ssh://git@github.com",
    }  # fmt: skip
    assert results["gl"]["urls"]["api"] == "https://gitlab.example.com/api/v4"
    assert (results["gh"]["default"], results["gh"]["enabled"], results["off"]["enabled"]) == (False, True, False)
    for scm_id, one in results.items():
        assert acme.get(f"/v1/scms/{scm_id}") == one
    assert "internal, gh" in acme.expect_refusal(404, 5004, "GET", "/v1/scms/unknown")


@pytest.mark.parametrize(
    ("scm", "owner", "url"),
    [
        ("gh", "team", "https://github.com/team/hello.git"),
        ("gl", "team/sub-team", "https://gitlab.example.com/team/sub-team/hello.git"),
        ("bb", "TEAM", "https://bitbucket.example.com/scm/TEAM/hello.git"),
        ("cloud", "team", "https://bitbucket.org/team/hello.git"),
    ],
)
@pytest.mark.parametrize("field", ["repository_name", "existing_repository_name"])
def test_a_repository_is_chosen_by_its_names(acme: Api, scm: str, owner: str, url: str, field: str) -> None:
    shown = create(acme, {"scm": scm, "repository_owner": owner, field: "hello"})["source"]
    assert shown["repository_https_url"] == url
    assert (shown["scm"]["id"], shown["repository_owner"], shown["repository_name"]) == (scm, owner, "hello")
    assert one_row(Algorithm, owner="acme").scm_id == scm


def test_a_repository_may_have_the_names_of_the_algorithm(acme: Api) -> None:
    shown = create(acme, {"scm": "gh", "repository_owner": "acme", "repository_name": "Hello"})["source"]
    assert shown["repository_https_url"] == "https://github.com/acme/Hello.git"


@pytest.mark.parametrize(
    ("scm", "given", "stored"),
    [
        ("gh", PAIR, ("git", "open sesame")),
        ("gh", {"secret_token": "a-token"}, ("x-access-token", "a-token")),
        ("gl", {"username": "", "password": "", "secret_token": "a-token"}, ("oauth2", "a-token")),
        ("bb", {"username": "bot", "password": None, "secret_token": "a-token"}, ("bot", "a-token")),
        ("cloud", {"secret_token": "a-token"}, ("x-token-auth", "a-token")),
        ("gh", {}, None),
        ("gh", {"username": "", "password": "", "secret_token": ""}, None),
    ],
)
def test_its_credentials_are_kept(acme: Api, scm: str, given: dict[str, Any], stored: tuple[str, str] | None) -> None:
    shown = create(acme, {**REPOSITORY, "scm": scm}, scmsCredentials=given)
    assert credentials() == stored
    assert "sesame" not in json.dumps(shown)
    assert "a-token" not in json.dumps(shown)


@pytest.mark.parametrize(
    "source",
    [
        None,
        {},
        {"scm": "internal"},
        {"scm": ""},
        {"scm": {"id": "internal", "provider": "internal"}},
        {"scm": "internal", "repository_owner": "acme", "repository_name": "Hello", "initial_commit_message": "Hello."},
        {"scm": "internal", "repository_owner": "", "existing_repository_name": ""},
    ],
)
def test_without_a_system_the_repository_is_hosted(acme: Api, source: dict[str, Any]) -> None:
    shown = create(acme, source, scmsCredentials={})["source"]
    assert shown["repository_https_url"] == "http://localhost/git/acme/Hello.git"
    assert shown["scm"]["id"] == "internal"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"scm": "github"}, "there are internal, gh, gl"),
        ({"scm": "off", "repository_owner": "team", "repository_name": "hello"}, "disabled"),
        ({"scm": "elsewhere"}, "not configured"),
        ({"scm": "internal", "repository_owner": "team"}, "source.repository_owner"),
        ({"scm": "internal", "repository_name": "other"}, "source.repository_name"),
        ({"existing_repository_name": "hello"}, "source.existing_repository_name"),
        ({"repository_owner": "team", "repository_name": "hello"}, "source.repository_owner"),
        ({**ELSEWHERE, "repository_owner": "team"}, "source.repository_owner"),
        ({**ELSEWHERE, "scm": "internal"}, "internal"),
        ({**ELSEWHERE, **REPOSITORY}, "not by both"),
        ({"scm": "gh"}, "needs source.repository_owner"),
        ({"scm": "gh", "repository_owner": "team"}, "needs source.repository_owner"),
        ({**REPOSITORY, "existing_repository_name": "other"}, "differ"),
        ({**REPOSITORY, "repository_owner": ".."}, "source.scm gh"),
        ({**REPOSITORY, "repository_owner": "a@evil.example.com"}, None),
        ({**REPOSITORY, "repository_name": "hello?x=#y"}, "source.scm gh"),
        ({**REPOSITORY, "repository_name": "-hello"}, "source.scm gh"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(acme: Api, source: dict[str, Any], said: str | None) -> None:
    if said is None:  # a strange name, but one on the same server
        assert create(acme, source)["source"]["repository_https_url"].startswith("https://github.com/")
    else:
        assert said in refusal(acme, source)


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ({}, PAIR),
        ({"scm": "internal"}, {"secret_token": "a-token"}),
        (ELSEWHERE, PAIR),
        (REPOSITORY, {"username": "git"}),
        (REPOSITORY, {"password": "open sesame"}),
        (REPOSITORY, {**PAIR, "secret_token": "a-token"}),
        ({**REPOSITORY, "credentials": PAIR}, PAIR),
    ],
)
def test_credentials_that_cannot_be_used_are_refused(acme: Api, source: dict[str, Any], given: dict[str, Any]) -> None:
    said = refusal(acme, source, scmsCredentials=given)
    assert "redentials" in said
    assert "sesame" not in said


def test_an_update_chooses_another_repository(acme: Api) -> None:
    create(acme, REPOSITORY, scmsCredentials=PAIR)
    path = "/v1/algorithms/acme/Hello"
    changed = acme.put(path, {"source": {"existing_repository_name": "other"}})["source"]
    assert changed["repository_https_url"] == "https://github.com/team/other.git"
    assert credentials() == ("git", "open sesame")
    acme.put(path, {"scmsCredentials": {"secret_token": "a-token"}})
    assert credentials() == ("x-access-token", "a-token")
    moved = acme.put(path, {"source": {**REPOSITORY, "scm": "gl"}})["source"]
    assert moved["repository_https_url"] == "https://gitlab.example.com/team/hello.git"
    assert credentials() is None  # they were for another host
    elsewhere = acme.put(path, {"source": ELSEWHERE})["source"]
    assert (elsewhere["scm"]["id"], one_row(Algorithm, owner="acme").scm_id) == ("elsewhere", None)
    for source in ({"scm": "unknown"}, {"scm": "internal"}, {"repository_owner": "other"}):
        acme.expect_refusal(400, 2015, "PUT", path, {"source": source})


@pytest.mark.parametrize("source", [{}, ELSEWHERE, REPOSITORY, {**REPOSITORY, "scm": "bb"}])
def test_what_a_response_says_can_be_sent_back(acme: Api, source: dict[str, Any]) -> None:
    shown = create(acme, source)
    assert acme.put("/v1/algorithms/acme/Hello", shown)["source"] == shown["source"]


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("github.com", "github"),
        ("gitlab.example.com", "gitlab"),
        ("bitbucket.org", "bitbucket-cloud"),
        ("bitbucket.example.com", "bitbucket"),
        ("git.example.com", "github"),
    ],
)
def test_a_repository_that_was_named_by_its_url_has_a_provider_that_clients_know(
    acme: Api, host: str, provider: str
) -> None:
    shown = create(acme, {"repository_https_url": f"https://{host}/team/sub/hello.git"})["source"]
    assert (shown["scm"]["id"], shown["scm"]["provider"], shown["scm"]["name"]) == ("elsewhere", provider, host)
    assert (shown["repository_owner"], shown["repository_name"]) == ("team/sub", "hello")


def test_a_system_that_was_removed_leaves_the_repository(acme: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    url = create(acme, REPOSITORY)["source"]["repository_https_url"]
    monkeypatch.setenv("LONGSHORE_SCMS", "")
    settings.cache_clear()
    shown = acme.get("/v1/algorithms/acme/Hello")["source"]
    assert (shown["repository_https_url"], shown["scm"]["id"], shown["scm"]["provider"]) == (url, "elsewhere", "github")
