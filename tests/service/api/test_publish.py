"""A publish does what its body says, or is refused with the reason; nothing in it is dropped."""

from typing import Any

import pytest

from shared.db.models import Algorithm, AuditEvent, Job, JobKind
from tests.rows import HASH, OTHER_HASH, build_commit, end_build, make_claim, one_row
from tests.service.api.invocation import Api

PUBLIC = {"settings": {"algorithm_callability": "public"}}
PRIVATE = {"settings": {"algorithm_callability": "private"}}


@pytest.fixture
def hello(acme: Api) -> str:
    """The path of an algorithm whose repository is elsewhere."""
    return acme.make_algorithm("acme")


def published(acme: Api, hello: str, number: int, body: dict[str, Any] | None = None) -> tuple[str, str]:
    """Publish another commit; its semantic version and callability."""
    build_commit(one_row(Algorithm, owner="acme"), f"{number:040x}")
    shown = acme.post(f"{hello}/versions", body)
    return shown["version_info"]["semantic_version"], shown["settings"]["algorithm_callability"]


def test_a_publish_keeps_the_callability_of_its_predecessor(acme: Api, hello: str) -> None:
    assert published(acme, hello, 1) == ("0.1.0", "private")
    assert published(acme, hello, 2, PUBLIC) == ("0.2.0", "public")
    revision = {"version_info": {"version_type": "revision"}}
    assert published(acme, hello, 3, revision) == ("0.2.1", "public")
    assert published(acme, hello, 4, {**revision, "settings": {}}) == ("0.2.2", "public")
    assert published(acme, hello, 5, {"settings": {"license": "mit"}}) == ("0.3.0", "public")
    assert published(acme, hello, 6, PRIVATE) == ("0.4.0", "private")
    assert published(acme, hello, 7) == ("0.5.0", "private")


def test_the_predecessor_has_the_highest_number_and_is_published(acme: Api, hello: str) -> None:
    assert published(acme, hello, 1, PUBLIC) == ("0.1.0", "public")
    for number in range(2, 11):
        assert published(acme, hello, number, PUBLIC) == (f"0.{number}.0", "public")
    assert published(acme, hello, 11, PRIVATE) == ("0.11.0", "private")  # as text, 0.9.0 comes after it
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    acme.post(f"{hello}/version", PUBLIC)  # waits for its build
    assert published(acme, hello, 13) == ("0.13.0", "private")


def test_a_first_version_is_private_unless_its_publish_says_public(acme: Api) -> None:
    hello = acme.make_algorithm("acme", settings={"algorithm_callability": "public"})
    assert published(acme, hello, 1) == ("0.1.0", "private")


def test_an_update_of_the_callability_changes_the_version_that_is_shown(acme: Api, rival: Api, hello: str) -> None:
    published(acme, hello, 1, PRIVATE)
    rival.expect_refusal(404, 1001, "GET", hello)
    acme.put(hello, PUBLIC)
    assert acme.get(hello)["settings"]["algorithm_callability"] == "public"
    rival.expect_refusal(403, 2001, "GET", hello)
    assert published(acme, hello, 2) == ("0.2.0", "public")
    acme.put(hello, PRIVATE)
    assert [one["settings"]["algorithm_callability"] for one in acme.get(f"{hello}/versions")["results"]] == [
        "private",
        "public",
    ]


@pytest.mark.parametrize("field", ["commitSha", "git_hash"])
@pytest.mark.parametrize("length", [40, 7])
def test_the_commit_has_two_names(acme: Api, hello: str, field: str, length: int) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    build_commit(one_row(Algorithm, owner="acme"), OTHER_HASH)
    commit = HASH[:length].upper()
    body = {"commitSha": commit} if field == "commitSha" else {"version_info": {"git_hash": commit}}
    assert acme.post(f"{hello}/versions", body)["version_info"]["git_hash"] == HASH


def test_both_names_of_the_commit_must_agree(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    build_commit(one_row(Algorithm, owner="acme"), OTHER_HASH)
    body = {"commitSha": HASH, "version_info": {"git_hash": OTHER_HASH}}
    assert "different" in acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    body = {"commitSha": HASH[:8], "version_info": {"git_hash": HASH}}
    assert acme.post(f"{hello}/versions", body)["version_info"]["git_hash"] == HASH


@pytest.mark.parametrize("git_hash", ["0" * 40, "abc", "not a hash"])
def test_a_commit_that_was_not_compiled_is_refused(acme: Api, hello: str, git_hash: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    body = {"version_info": {"git_hash": git_hash}}
    assert "version_info.git_hash" in acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    assert "semantic_version" not in acme.get(hello)["version_info"]


def test_the_number_must_be_the_next_one(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    for wrong in ("1.0.0", "0.0.1", "0.1", "v0.1.0", "next"):
        body = {"version_info": {"semantic_version": wrong}}
        assert "would become 0.1.0" in acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    body = {"version_info": {"semantic_version": "0.1.0", "version_type": "major"}}
    assert "would become 1.0.0" in acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    shown = acme.post(f"{hello}/versions", {"version_info": {"semantic_version": "0.1.0"}})
    assert shown["version_info"]["semantic_version"] == "0.1.0"


def test_a_repeated_publish_that_names_another_number_is_refused(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    first = acme.call("POST", f"{hello}/versions", {"version_info": {"semantic_version": "0.1.0"}})
    again = acme.call("POST", f"{hello}/versions", {"version_info": {"semantic_version": "0.1.0"}})
    assert again.headers["X-Job-Id"] == first.headers["X-Job-Id"]
    body = {"version_info": {"semantic_version": "0.2.0"}}
    assert "is being published as 0.1.0" in acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    end_build(make_claim(one_row(Job, kind=JobKind.COMPILE)))
    assert acme.get(hello)["version_info"]["semantic_version"] == "0.1.0"


def test_a_call_before_the_build_has_ended_says_that_the_publish_waits(acme: Api, rival: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    publish = acme.call("POST", f"{hello}/versions", {"settings": {"algorithm_callability": "public"}})
    for selector in ("", "/0.1.0", "/0.1", "/latest"):
        said = acme.expect_refusal(404, 5004, "POST", f"/v1/algo/acme/Hello{selector}", "x")
        assert f"The publish of 0.1.0 ({HASH[:12]}) waits for its build" in said
        assert f"/v1/jobs/{publish.headers['X-Job-Id']}" in said
        assert "publish one first" not in said
    rival.expect_refusal(404, 1001, "POST", "/v1/algo/acme/Hello", "x")


def test_settings_of_a_publish_are_those_of_the_algorithm(acme: Api, hello: str) -> None:
    changed = {
        "source_visibility": "open",
        "license": "mit",
        "royalty_microcredits": 5,
        "network_access": "isolated",
        "pipeline_enabled": False,
    }
    published(acme, hello, 1, {"settings": changed})
    assert changed.items() <= acme.get(hello)["settings"].items()
    assert one_row(AuditEvent, action="publish").detail["settings"] == sorted(changed)


def test_a_publish_cannot_change_what_was_built(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    for settings in ({"language": "python38"}, {"algorithm_environment": "python38"}, {"environment": "gpu"}):
        body = {"settings": settings}
        assert "PUT" in acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    acme.expect_refusal(400, 4001, "POST", f"{hello}/versions", {"settings": {"package_set": "cobol"}})
    assert "semantic_version" not in acme.get(hello)["version_info"]
    acme.post(f"{hello}/versions", {"settings": {"language": "python3", "environment": "cpu"}})


@pytest.mark.parametrize(
    "body",
    [
        {"source": {"scm": "unknown"}},
        {"source": {"scm": "internal"}},
        {"source": {"repository_https_url": "https://localhost:1/team/other.git"}},
        {"source": {"credentials": {"username": "git", "password": "new"}}},
        {"scmsCredentials": {"username": "git", "password": "new"}},
    ],
)
def test_a_publish_cannot_change_the_repository(acme: Api, hello: str, body: dict[str, Any]) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    acme.expect_refusal(400, 2015, "POST", f"{hello}/versions", body)
    assert "semantic_version" not in acme.get(hello)["version_info"]


def test_a_publish_may_say_what_the_repository_is(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"), HASH)
    made = acme.post(f"{hello}/versions", {"source": acme.get(hello)["source"], "scmsCredentials": {}})
    assert made["version_info"]["semantic_version"] == "0.1.0"


def test_an_ssh_key_in_a_compile_is_refused_where_it_would_be_needed(acme: Api, hello: str) -> None:
    body = {"commitSha": HASH, "sshPrivateKey": "-----BEGIN"}
    said = acme.expect_refusal(400, 2015, "POST", f"{hello}/compile", body)
    assert "sshPrivateKey" in said
    assert "BEGIN" not in said
