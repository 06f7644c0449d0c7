"""`/v1/algorithms`: create, read, change and delete."""

from pathlib import Path
from typing import Any

import pytest

from shared.db.models import Algorithm, Job, JobState
from shared.encryption import keyring
from shared.git.sources import decrypt_source_credentials
from shared.settings import settings
from tests.rows import HASH, build_commit, change, end_build, make_claim, one_row
from tests.service.api.invocation import ELSEWHERE, Api

LABEL = {"label": "Hello"}


def test_an_algorithm_is_created_as_the_page_has_it(acme: Api) -> None:
    made = acme.call(
        "POST",
        "/v1/algorithms/acme",
        {
            "name": "Hello",
            "details": {"label": "Hello", "summary": "Says hello."},
            "settings": {"language": "python3-1", "algorithm_callability": "private", "source_visibility": "closed"},
            "version_info": {"sample_input": '"you"'},
        },
    )
    assert made.status_code == 201
    body = made.get_json()
    assert (body["name"], body["details"]["summary"], body["settings"]["language"]) == (
        "Hello",
        "Says hello.",
        "python3-1",
    )
    assert body["source"]["repository_https_url"] == "http://localhost/git/acme/Hello.git"
    assert body["source"]["scm"]["provider"] == "internal"
    assert body["self_link"] == "http://localhost/v1/algorithms/acme/Hello"
    assert one_row(Algorithm, id=body["id"]).sample_input == '"you"'


def test_it_is_found_by_name_and_by_id(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    by_name = acme.get(path)
    assert acme.get(f"/v1/algorithms/{by_name['id']}") == by_name
    assert acme.get(f"/v1/algorithms/{by_name['id'].upper()}") == by_name
    assert "build" not in by_name
    assert "git_hash" not in by_name["version_info"]
    assert by_name["version_info"]["insights_enabled"] is False


@pytest.mark.parametrize(
    ("path", "code"),
    [("acme/Nothing", 1001), ("00000000-0000-4000-8000-000000000000", 1009), ("nothing", 1000), ("x" * 3000, 1000)],
)
def test_a_missing_one_is_404_in_the_words_that_the_client_looks_for(acme: Api, path: str, code: int) -> None:
    assert "No such algorithm" in acme.expect_refusal(404, code, "GET", f"/v1/algorithms/{path}")


def test_a_change_changes_what_it_names(acme: Api) -> None:
    path = acme.make_algorithm("acme", settings={"language": "python3-1", "license": "mit"})
    changed = acme.put(path, {"details": {"tagline": "Short."}, "settings": {"algorithm_callability": "public"}})
    assert changed["details"] == {"label": "Hello", "summary": None, "tagline": "Short."}
    assert changed["settings"]["algorithm_callability"] == "public"
    assert (changed["settings"]["language"], changed["settings"]["license"]) == ("python3-1", "mit")
    assert acme.put(path, {"details": {}, "settings": {}, "source": {}, "version_info": {}})["id"] == changed["id"]


def test_the_form_of_the_published_client_is_refused_with_a_sentence(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    message = acme.expect_refusal(
        415, 2015, "PUT", path, b"details=label", Content_Type="application/x-www-form-urlencoded"
    )
    assert "application/json" in message


def test_a_deleted_one_is_gone_its_jobs_end_and_its_name_is_free(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    old = acme.get(path)["id"]
    acme.post(f"{path}/compile", {"commitSha": HASH})
    acme.delete(path)
    acme.expect_refusal(404, 1001, "GET", path)
    acme.expect_refusal(404, 1009, "GET", f"/v1/algorithms/{old}")
    assert acme.get("/v1/users/acme/algorithms") == []
    assert one_row(Job, algorithm_id=old).state == JobState.FAILED
    acme.make_algorithm("acme")
    assert acme.get(path)["id"] != old
    assert acme.get(f"{path}/builds")["results"] == []


def test_an_owners_algorithms_are_a_plain_array(acme: Api, rival: Api) -> None:
    acme.make_algorithm("acme", "First")
    acme.make_algorithm("acme", "Second")
    listed = acme.get("/v1/users/acme/algorithms")
    assert [set(row) for row in listed] == [{"id", "algoname", "username"}] * 2
    assert [row["algoname"] for row in listed] == ["Second", "First"]
    rival.expect_refusal(403, 2001, "GET", "/v1/users/acme/algorithms")


@pytest.mark.parametrize("twin", ["Hello", "hello", "HELLO", "Hello_"])
def test_a_name_that_is_taken_in_image_references_is_refused(acme: Api, twin: str) -> None:
    acme.make_algorithm("acme")
    acme.expect_refusal(409, 1002, "POST", "/v1/algorithms/acme", {"name": twin, "details": LABEL})


def test_the_same_name_under_another_owner_is_free(acme: Api, rival: Api) -> None:
    acme.make_algorithm("acme")
    rival.make_algorithm("rival")
    assert [one["algoname"] for one in rival.get("/v1/users/rival/algorithms")] == ["Hello"]


@pytest.mark.parametrize("name", ["version", "Versions", "builds", "compile"])
def test_words_of_the_interface_are_no_names(acme: Api, name: str) -> None:
    acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", {"name": name, "details": LABEL})


@pytest.mark.parametrize("field", ["language", "algorithm_environment", "package_set"])
def test_an_unknown_language_is_refused(acme: Api, field: str) -> None:
    body = {"name": "Hello", "details": LABEL, "settings": {field: "cobol"}}
    assert "python3" in acme.expect_refusal(400, 4001, "POST", "/v1/algorithms/acme", body)
    acme.make_algorithm("acme", "Other")
    acme.expect_refusal(400, 4001, "PUT", "/v1/algorithms/acme/Other", {"settings": {field: "cobol"}})


def test_an_owner_that_is_not_there(admin: Api, acme: Api) -> None:
    body = {"name": "Hello", "details": LABEL}
    admin.expect_refusal(404, 3000, "POST", "/v1/algorithms/nobody", body)
    acme.expect_refusal(403, 2001, "POST", "/v1/algorithms/nobody", body)


def test_others_may_do_nothing_with_it(acme: Api, rival: Api) -> None:
    path = acme.make_algorithm("acme")
    calls: list[tuple[str, str, object]] = [
        ("GET", "", None),
        ("PUT", "", {}),
        ("DELETE", "", None),
        ("POST", "/compile", {"commitSha": HASH}),
        ("POST", "/version", {}),
        ("POST", "/versions", {}),
        ("GET", "/versions", None),
        ("GET", f"/versions/{HASH}", None),
        ("GET", "/builds", None),
        ("GET", f"/builds/{HASH}", None),
        ("GET", f"/builds/{HASH}/logs", None),
        ("GET", f"/versions/{HASH}/registry", None),
        ("POST", f"/versions/{HASH}/registry", {"registry_id": "r"}),
        ("DELETE", f"/versions/{HASH}/registry/r", None),
    ]
    for method, suffix, body in calls:
        rival.expect_refusal(404, 1001, method, f"{path}{suffix}", body)


def test_an_admin_may(acme: Api, admin: Api) -> None:
    path = acme.make_algorithm("acme")
    assert admin.get(path)["name"] == "Hello"
    admin.post(f"{path}/compile", {"commitSha": HASH})


def credentials_of(algorithm_id: str) -> tuple[str, str] | None:
    return decrypt_source_credentials(keyring(), one_row(Algorithm, id=algorithm_id))


def test_credentials_of_a_repository_elsewhere_are_sealed_and_go_nowhere_else(acme: Api) -> None:
    source = {**ELSEWHERE, "credentials": {"username": "git", "password": "open sesame"}}
    path = acme.make_algorithm("acme", source=source)
    shown = acme.call("GET", path)
    algorithm_id = shown.get_json()["id"]
    assert b"sesame" not in shown.data
    assert shown.get_json()["source"]["repository_https_url"] == ELSEWHERE["repository_https_url"]
    assert shown.get_json()["source"]["scm"]["id"] == "elsewhere"
    assert credentials_of(algorithm_id) == ("git", "open sesame")
    acme.put(path, {"source": {"repository_https_url": "https://localhost:1/team/other.git"}})
    assert credentials_of(algorithm_id) == ("git", "open sesame")
    acme.put(path, {"source": {"repository_https_url": "https://thief.example.com/team/hello.git"}})
    assert credentials_of(algorithm_id) is None


@pytest.mark.parametrize(
    "source",
    [
        {"repository_https_url": "https://user:word@git.example.com/a.git"},
        {"repository_https_url": "file:///etc/passwd"},
        {"repository_https_url": "http://git.example.com/a.git"},
        {"repository_https_url": "ssh://git@git.example.com/a.git"},
        {"repository_https_url": "--upload-pack=touch /tmp/x"},
        {"repository_https_url": "https://git.example.com/a.git?b"},
        {"repository_https_url": "https://git.example.com/" + "a" * 500},
        {"credentials": {"username": "git", "password": "word"}},
        {"repository_https_url": "https://git.example.com/a.git", "credentials": {"username": "git"}},
    ],
)
def test_a_source_that_cannot_be_is_refused(acme: Api, source: dict[str, Any]) -> None:
    body = {"name": "Hello", "details": LABEL, "source": source}
    message = acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", body)
    assert "word" not in message.replace("password", "")
    acme.expect_refusal(404, 1001, "GET", "/v1/algorithms/acme/Hello")


@pytest.mark.usefixtures("acme", "installation")
def test_a_short_form_that_grows_too_long_is_refused(
    acme: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.touch()
    monkeypatch.setenv("LONGSHORE_SOURCE_SSH_KNOWN_HOSTS", str(known_hosts))
    settings.cache_clear()
    long = "git@git.example.com:" + "a" * (512 - len("git@git.example.com:"))
    acme.make_algorithm("acme", "Short", source={"repository_https_url": long[:500]})
    body = {"name": "Long", "details": LABEL, "source": {"repository_https_url": long}}
    acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", body)


def test_a_compile_without_a_commit_asks_the_repository_which_is_away_here(acme: Api) -> None:
    acme.post("/v1/algorithms/acme", {"name": "Hosted", "details": LABEL})
    # 503 is for the git service, which belongs to the installation; a repository elsewhere is 409.
    for path, status in {"/v1/algorithms/acme/Hosted": 503, acme.make_algorithm("acme", "Elsewhere"): 409}.items():
        response = acme.call("POST", f"{path}/compile")
        assert (response.status_code, response.get_json()["error"]["code"]) == (status, 2015)
        assert int(response.headers["Retry-After"]) > 0


@pytest.mark.usefixtures("acme", "app")
def test_a_compile_whose_sources_key_is_gone_says_so(acme: Api) -> None:
    source = {**ELSEWHERE, "credentials": {"username": "git", "password": "word"}}
    path = acme.make_algorithm("acme", source=source)
    row = one_row(Algorithm, owner="acme")
    change(row, source_credentials="gone." + (row.source_credentials or "").partition(".")[2])
    assert "'gone'" in acme.expect_refusal(400, 2015, "POST", f"{path}/compile")


def test_the_latest_version_stands_for_the_algorithm(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    first, second = "a" * 40, "b" * 40
    build_commit(one_row(Algorithm, owner="acme"), first)
    assert acme.get(path)["version_info"]["git_hash"] == first
    acme.post(f"{path}/version", {})
    acme.post(f"{path}/compile", {"commitSha": second})
    assert acme.get(path)["version_info"]["git_hash"] == first  # a published version comes before a compiled one
    end_build(make_claim(one_row(Job, git_hash=second)))
    acme.post(f"{path}/version", {})
    shown = acme.get(path)
    assert (shown["version_info"]["git_hash"], shown["version_info"]["semantic_version"]) == (second, "0.2.0")
