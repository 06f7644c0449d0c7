"""Languages, environments and templates, as clients read them before they create an algorithm."""

import io
import tarfile
import uuid
from collections.abc import Callable

import pytest
from flask import Flask

from shared.settings import settings
from tests.service.api.invocation import Api

LANGUAGES = "/v1/algorithm-environments/edge/languages"
SPECIFICATIONS = "/v1/algorithm-environments/edge/environment-specifications"
LABEL = {"label": "Hello"}

Configured = Callable[..., None]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Changes settings for the rest of the test."""

    def change(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"LONGSHORE_{name.upper()}", value)
        settings.cache_clear()

    return change


def by_display_name(api: Api, language: str = "python3") -> dict[str, dict[str, str]]:
    return {one["display_name"]: one for one in api.get(f"{LANGUAGES}/{language}/environments")["environments"]}


def test_the_languages_are_what_a_setting_takes(acme: Api) -> None:
    languages = acme.get(LANGUAGES)
    assert {"name": "python3", "display_name": "Python 3.x"} in languages
    assert {"name": "python38", "display_name": "Python 3.8"} in languages
    for number, language in enumerate(languages):
        body = {"name": f"Hello{number}", "details": LABEL, "settings": {"language": language["name"]}}
        acme.post("/v1/algorithms/acme", body)
        assert acme.get(f"{LANGUAGES}/{language['name']}/environments")["environments"]


def test_a_language_has_an_environment_for_each_version_of_python(acme: Api) -> None:
    environments = acme.get(f"{LANGUAGES}/python3/environments")["environments"]
    names = [one["display_name"] for one in environments]
    assert names == ["Python 3.x", *(f"Python 3.{minor}" for minor in range(8, 14))]
    for one in environments:
        assert set(one) == {
            "id", "environment_specification_id", "display_name", "description", "created_at", "machine_type",
            "spec_type",
        }  # fmt: skip
        assert uuid.UUID(one["id"]) != uuid.UUID(one["environment_specification_id"])
        assert one["created_at"].endswith("Z")
        assert (one["machine_type"], one["spec_type"]) == ("CPU", "EXECUTION")
    assert acme.get(f"{LANGUAGES}/python3-1/environments")["environments"] == environments


def test_ids_follow_from_the_name_alone(acme: Api, configured: Configured) -> None:
    before = by_display_name(acme)
    configured(python_versions="3.12,3.8", python_image="mirror.example.com/python:{version}")
    after = by_display_name(acme)
    assert set(after) == {"Python 3.x", "Python 3.8", "Python 3.12"}
    for name, one in after.items():
        assert one["id"] == before[name]["id"]
        assert one["environment_specification_id"] == before[name]["environment_specification_id"]
    # Other programs keep them, so they stay for good.
    assert after["Python 3.8"]["id"] == "6dadd456-78ef-531f-bfaa-a8a009d23336"


def test_an_installation_adds_and_overrides_environments(acme: Api, configured: Configured) -> None:
    configured(environments='{"python38": "mirror.example.com/old:1", "tensorflow-2.3": "mirror.example.com/tf:1"}')
    environments = by_display_name(acme)
    assert "mirror.example.com/old:1" in environments["Python 3.8"]["description"]
    assert environments["tensorflow-2.3"]["id"]
    acme.make_algorithm("acme", settings={"package_set": "tensorflow-2.3"})


@pytest.mark.parametrize("field", ["language", "algorithm_environment", "package_set"])
def test_an_id_is_accepted_wherever_a_name_is(acme: Api, field: str) -> None:
    wanted = by_display_name(acme)["Python 3.8"]["id"]
    path = acme.make_algorithm("acme", settings={field: wanted})
    assert acme.get(path)["settings"][field] == wanted
    other = by_display_name(acme)["Python 3.12"]["id"].upper()
    assert acme.put(path, {"settings": {field: other}})["settings"][field] == other
    assert acme.get(f"{LANGUAGES}/{wanted}/environments")["environments"][0]["id"] == wanted


@pytest.mark.parametrize("name", ["cobol", "python27", "08ae67a9-0000-56a5-9e78-7f2d6b8de1a4", "python 38"])
def test_an_unknown_one_is_refused_with_the_names_that_exist(acme: Api, name: str) -> None:
    body = {"name": "Hello", "details": LABEL, "settings": {"algorithm_environment": name}}
    said = acme.expect_refusal(400, 4001, "POST", "/v1/algorithms/acme", body)
    assert "settings.algorithm_environment" in said
    assert "python3, python3-1, python38" in said


def test_an_empty_text_stands_for_none(acme: Api) -> None:
    path = acme.make_algorithm(
        "acme", settings={"language": "", "package_set": "", "algorithm_environment": "python38"}
    )
    assert acme.get(path)["settings"]["language"] == "python3"
    assert "package_set" not in acme.get(path)["settings"]
    changed = acme.put(path, {"settings": {"algorithm_environment": ""}})["settings"]
    assert "algorithm_environment" not in changed


def test_an_unknown_language_is_not_found(acme: Api) -> None:
    assert "python38" in acme.expect_refusal(404, 4001, "GET", f"{LANGUAGES}/cobol/environments")


def test_the_template_is_a_source_for_this_environment(acme: Api) -> None:
    environment = by_display_name(acme)["Python 3.8"]
    answer = acme.call("GET", f"{SPECIFICATIONS}/{environment['environment_specification_id']}/template")
    assert answer.mimetype == "application/octet-stream"
    with tarfile.open(fileobj=io.BytesIO(answer.data), mode="r:gz") as archive:
        assert "src/Algorithm.py" in archive.getnames()
        configuration = archive.extractfile("algorithmia.conf")
        assert configuration is not None
        assert b"python38" in configuration.read()
    again = acme.call("GET", f"{SPECIFICATIONS}/{environment['id']}/template")
    assert again.data == answer.data


def test_an_unknown_template_is_not_found(acme: Api) -> None:
    acme.expect_refusal(404, 5004, "GET", f"{SPECIFICATIONS}/{uuid.uuid4()}/template")


@pytest.mark.parametrize(
    "path", [LANGUAGES, f"{LANGUAGES}/python3/environments", f"{SPECIFICATIONS}/python38/template"]
)
def test_all_this_needs_a_key(app: Flask, path: str) -> None:
    assert app.test_client().get(path).status_code == 401
