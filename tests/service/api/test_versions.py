"""Compile, publish and read versions."""

from typing import Any

import pytest

from shared.db.models import Algorithm, Build, ImagePush, Job, JobKind, JobState, PushState, Version
from tests.rows import (
    DIGEST,
    HASH,
    OTHER_HASH,
    build_commit,
    change,
    end_badly,
    end_build,
    end_push,
    fresh,
    make_claim,
    one_row,
)
from tests.service.api.invocation import Api

PAIR = {"registry_username": "pusher", "registry_password": "open sesame"}


@pytest.fixture
def hello(acme: Api) -> str:
    """The path of an algorithm whose repository is elsewhere."""
    return acme.make_algorithm("acme")


def built(git_hash: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"), git_hash)


def test_a_compile_answers_as_the_page_has_it(acme: Api, hello: str) -> None:
    response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH})
    job = one_row(Job, kind=JobKind.COMPILE)
    assert response.headers["Location"] == f"/v1/jobs/{job.id}"
    assert response.headers["X-Job-Id"] == job.id
    shown = response.get_json()
    assert shown["build"]["status"] == "in-progress"
    assert (shown["build"]["commit_sha"], shown["build"]["resource_type"]) == (HASH, "algorithm_build")
    assert shown["build"]["started_at"] is not None
    assert "finished_at" not in shown["build"]
    assert "compilation" not in shown
    assert "semantic_version" not in shown["version_info"]
    assert shown["version_info"]["git_hash"] == HASH
    assert shown["resource_type"] == "algorithm"
    assert shown["self_link"] == f"http://localhost{hello}/versions/{HASH}"


def test_upper_case_in_a_hash_is_the_same_commit(acme: Api, hello: str) -> None:
    assert acme.post(f"{hello}/compile", {"commitSha": HASH.upper()})["version_info"]["git_hash"] == HASH


def test_part_of_a_hash_cannot_be_asked_of_a_repository_elsewhere(acme: Api, hello: str) -> None:
    acme.expect_refusal(400, 2015, "POST", f"{hello}/compile", {"commitSha": HASH[:12]})


def test_a_compile_with_push_credentials_shows_the_push(acme: Api, admin: Api, hello: str) -> None:
    registry_id = admin.make_registry()
    push = {"registry_id": registry_id, **PAIR}
    shown = acme.post(f"{hello}/compile", {"commitSha": HASH, "registry_push_credentials": push})
    status = shown["build"]["registry_status"]
    assert (status["registry_id"], status["status"], status["attempt"]) == (registry_id, "queued", 1)
    assert status["image"] == f"registry.example.com/acme/hello:{HASH}"
    assert "sesame" not in str(shown)


def test_a_list_pushes_to_several_registries(acme: Api, admin: Api, hello: str) -> None:
    registries = [admin.make_registry("a.example.com"), admin.make_registry("b.example.com")]
    pushes = [{"registry_id": registry_id} for registry_id in registries]
    acme.post(f"{hello}/compile", {"commitSha": HASH, "registry_push_credentials": pushes})
    listed = acme.get(f"{hello}/versions/{HASH}/registry")
    assert [status["registry_id"] for status in listed] == registries
    job = acme.get(f"/v1/jobs/{one_row(Job, kind=JobKind.COMPILE).id}")
    assert [child["registry_id"] for child in job["children"]] == registries


@pytest.mark.parametrize("empty", [None, {}, []])
def test_nothing_given_pushes_nowhere(acme: Api, hello: str, empty: dict[str, Any] | list[Any] | None) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH, "registry_push_credentials": empty})
    assert acme.get(f"{hello}/versions/{HASH}/registry") == []


def test_force_in_any_case_builds_anew(acme: Api, hello: str) -> None:
    built(HASH)
    first = acme.post(f"{hello}/compile?force=False", {"commitSha": HASH})["build"]["build_id"]
    second = acme.post(f"{hello}/compile?force=TRUE", {"commitSha": HASH})["build"]["build_id"]
    assert first != second


def test_a_compile_of_a_good_build_is_done_at_once(acme: Api, hello: str) -> None:
    built(HASH)
    shown = acme.post(f"{hello}/compile", {"commitSha": HASH})
    assert (shown["build"]["status"], shown["compilation"]["successful"]) == ("succeeded", True)


@pytest.mark.parametrize("resource", ["version", "versions"])
@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"version_info": {}, "settings": {}, "details": {}, "source": {}},
        {"version_info": {"version_type": None}},
    ],
)
def test_a_publish_without_a_word_is_a_private_minor(
    acme: Api, hello: str, resource: str, body: dict[str, Any] | None
) -> None:
    built(HASH)
    shown = acme.post(f"{hello}/{resource}", body)
    assert shown["version_info"]["semantic_version"] == "0.1.0"
    assert shown["settings"]["algorithm_callability"] == "private"
    assert shown["build"]["version_info"] == {"semantic_version": "0.1.0"}


def test_a_publish_says_what_it_is_told(acme: Api, hello: str) -> None:
    built(HASH)
    info = {"version_type": "minor", "release_notes": "First.", "sample_input": "1", "sample_output": "2"}
    shown = acme.post(
        f"{hello}/versions",
        {
            "settings": {"algorithm_callability": "public"},
            "version_info": info,
            "details": {"summary": "Says hello."},
        },
    )
    assert (shown["version_info"]["semantic_version"], shown["version_info"]["release_notes"]) == ("0.1.0", "First.")
    assert (shown["version_info"]["sample_input"], shown["version_info"]["sample_output"]) == ("1", "2")
    assert (shown["settings"]["algorithm_callability"], shown["details"]["summary"]) == ("public", "Says hello.")


def test_a_publish_that_waits_for_its_build(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    first = acme.call("POST", f"{hello}/version")
    again = acme.call("POST", f"{hello}/version")
    assert first.headers["X-Job-Id"] == again.headers["X-Job-Id"]
    assert first.get_json()["build"]["status"] == "in-progress"
    end_build(make_claim(one_row(Job, kind=JobKind.COMPILE)))
    shown = acme.get(f"{hello}/versions/{HASH}")
    assert (shown["build"]["status"], shown["build"]["version_info"]) == (
        "succeeded",
        {"semantic_version": "0.1.0"},
    )


def test_publishing_twice_is_1007(acme: Api, hello: str) -> None:
    built(HASH)
    acme.post(f"{hello}/version")
    assert "0.1.0" in acme.expect_refusal(400, 1007, "POST", f"{hello}/version")


def test_publishing_nothing_is_400(acme: Api, hello: str) -> None:
    assert "compile" in acme.expect_refusal(400, 2015, "POST", f"{hello}/version")


def test_publishing_a_failed_build_says_why(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    end_badly(make_claim(one_row(Job)), message="src/Hello.py is missing.")
    assert "src/Hello.py is missing." in acme.expect_refusal(400, 2015, "POST", f"{hello}/version")
    shown = acme.get(f"{hello}/versions/{HASH}")
    assert shown["build"]["status"] == "failed"
    assert shown["compilation"] == {"successful": False, "output": "src/Hello.py is missing."}


def test_a_refused_publish_changes_no_details(acme: Api, hello: str) -> None:
    acme.expect_refusal(400, 2015, "POST", f"{hello}/version", {"details": {"label": "New"}})
    assert acme.get(hello)["details"]["label"] == "Hello"


def test_a_publish_pins_another_commit_by_part_of_its_hash(acme: Api, hello: str) -> None:
    built(HASH)
    built(OTHER_HASH)
    shown = acme.post(f"{hello}/version", {"commitSha": HASH[:9]})
    assert shown["version_info"]["git_hash"] == HASH


def test_a_publish_with_a_push_is_tagged_with_its_number(acme: Api, admin: Api, hello: str) -> None:
    built(HASH)
    registry_id = admin.make_registry()
    response = acme.call("POST", f"{hello}/version", {"registry_push_credentials": {"registry_id": registry_id}})
    pushed = one_row(Job, kind=JobKind.PUSH)
    assert (pushed.parent_id, pushed.semantic_version) == (response.headers["X-Job-Id"], "0.1.0")
    assert response.get_json()["build"]["registry_status"]["status"] == "queued"


def test_a_failed_push_does_not_undo_a_publish(acme: Api, admin: Api, hello: str) -> None:
    built(HASH)
    acme.post(f"{hello}/version", {"registry_push_credentials": {"registry_id": admin.make_registry()}})
    end_badly(make_claim(one_row(Job, kind=JobKind.PUSH)))
    assert one_row(Version, git_hash=HASH).publish_state == "published"
    assert one_row(ImagePush).state == PushState.FAILED


@pytest.mark.parametrize("path", ["compile", "version", "versions"])
def test_an_unknown_registry_is_404_before_anything_is_done(acme: Api, hello: str, path: str) -> None:
    built(OTHER_HASH)
    body = {"registry_push_credentials": [{"registry_id": "00000000-0000-4000-8000-000000000000"}]}
    acme.expect_refusal(404, 5004, "POST", f"{hello}/{path}", body)
    assert one_row(Version).publish_state == "no"
    assert one_row(Job).state == JobState.SUCCEEDED


def test_versions_are_found_by_a_prefix_that_fits_one(acme: Api, hello: str) -> None:
    first, second, other = "abcdef0" + "1" * 33, "abcdef0" + "2" * 33, "fedcba0" + "1" * 33
    for git_hash in (first, second, other):
        acme.post(f"{hello}/compile", {"commitSha": git_hash})
    assert acme.get(f"{hello}/versions/fedcba0")["version_info"]["git_hash"] == other
    assert acme.get(f"{hello}/versions/{first[:8].upper()}")["version_info"]["git_hash"] == first
    acme.expect_refusal(400, 2015, "GET", f"{hello}/versions/abcdef0")
    for unknown in ("fedcba", "0000000", "not-a-hash", "f" * 40, "%25", "abcdef_", "f" * 4000):
        acme.expect_refusal(404, 5004, "GET", f"{hello}/versions/{unknown}")


def test_the_same_hash_of_another_algorithm_is_another_version(acme: Api, hello: str) -> None:
    other = acme.make_algorithm("acme", "Other")
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    acme.expect_refusal(404, 5004, "GET", f"{other}/versions/{HASH}")


def hashes(page: Any) -> list[str]:
    return [row["version_info"]["git_hash"] for row in page["results"]]


def test_versions_are_filtered(acme: Api, hello: str) -> None:
    public, private, waiting, compiled = "a" * 40, "b" * 40, "c" * 40, "d" * 40
    built(public)
    acme.post(f"{hello}/version", {"settings": {"algorithm_callability": "public"}})
    built(private)
    acme.post(f"{hello}/version", {"settings": {"algorithm_callability": "private"}})
    acme.post(f"{hello}/compile", {"commitSha": waiting})
    acme.post(f"{hello}/version", {"settings": {"algorithm_callability": "public"}})  # nobody can call it yet
    acme.post(f"{hello}/compile", {"commitSha": compiled})
    for query, seen in {
        "": [compiled, waiting, private, public],
        "?published=true": [private, public],
        "?published=False": [compiled, waiting],
        "?callable=True": [public],
        "?callable=false": [compiled, waiting, private],
        "?callable=FALSE&published=TRUE": [private],
        "?callable=1&published=0": [],
    }.items():
        assert hashes(acme.get(f"{hello}/versions{query}")) == seen, query
    acme.expect_refusal(400, 2015, "GET", f"{hello}/versions?published=perhaps")


def test_pages_follow_each_other_by_their_markers(acme: Api, hello: str) -> None:
    made = [f"{number:040x}" for number in range(7)]
    for git_hash in made[:5]:
        acme.post(f"{hello}/compile", {"commitSha": git_hash})
    first = acme.get(f"{hello}/versions?limit=2&published=false")
    acme.post(f"{hello}/compile", {"commitSha": made[5]})  # newer ones do not shift the pages
    second = acme.get(first["next_link"].removeprefix("http://localhost"))
    third = acme.get(f"{hello}/versions?limit=2&marker={second['marker']}")
    assert hashes(first) + hashes(second) + hashes(third) == made[4::-1]
    assert "published=false" in second["next_link"]
    assert (third["marker"], third["next_link"]) == (None, None)
    full = acme.get(f"{hello}/versions?limit=6")
    assert (len(full["results"]), full["marker"], full["next_link"]) == (6, None, None)


def test_a_version_shows_the_push_that_its_build_asked_for(acme: Api, admin: Api, hello: str) -> None:
    registry_id = admin.make_registry()
    acme.post(f"{hello}/compile", {"commitSha": HASH, "registry_push_credentials": {"registry_id": registry_id}})
    end_build(make_claim(one_row(Job, kind=JobKind.COMPILE)))
    end_push(make_claim(one_row(Job, kind=JobKind.PUSH)))
    status = acme.get(f"{hello}/versions/{HASH}")["build"]["registry_status"]
    assert (status["status"], status["digest"]) == ("succeeded", DIGEST)


def test_a_cancelled_build_shows_as_failed(acme: Api, hello: str) -> None:
    response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH})
    acme.delete(response.headers["Location"])
    assert acme.get(f"{hello}/versions/{HASH}")["build"]["status"] == "failed"
    assert fresh(one_row(Job)).state == JobState.CANCELLED


def test_builds_are_listed_and_read(acme: Api, hello: str) -> None:
    built(HASH)
    acme.post(f"{hello}/compile", {"commitSha": OTHER_HASH})
    page = acme.get(f"{hello}/builds?limit=1")
    assert [row["commit_sha"] for row in page["results"]] == [OTHER_HASH]
    (older,) = acme.get(f"{hello}/builds?marker={page['marker']}")["results"]
    assert older == acme.get(f"{hello}/builds/{older['build_id']}")
    assert (older["commit_sha"], older["status"]) == (HASH, "succeeded")
    assert older["finished_at"] >= older["started_at"]
    acme.expect_refusal(404, 5004, "GET", f"{hello}/builds/00000000-0000-4000-8000-000000000000")
    other = acme.make_algorithm("acme", "Other")
    acme.expect_refusal(404, 5004, "GET", f"{other}/builds/{older['build_id']}")


def test_logs_are_there_when_the_build_has_ended_or_in_part_before(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    build = one_row(Build)
    change(build, log="one\n")
    logs = f"{hello}/builds/{build.id}/logs"
    acme.expect_refusal(404, 5004, "GET", logs)
    assert acme.get(f"{logs}?partial=True") == {"logs": "one\n"}
    end_build(make_claim(one_row(Job)))
    assert acme.get(logs) == {"logs": "one\n"}
