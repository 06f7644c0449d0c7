"""Edge cases in which the API does what its OpenAPI document says."""

import pytest

from tests.service.api.invocation import ELSEWHERE, Api

ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/algorithms/acme", "OPTIONS, POST"),
        (f"/v1/algorithms/{ID}", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/v1/algorithms/acme/Hello", "DELETE, GET, HEAD, OPTIONS, PUT"),
        (f"/v1/algorithms/{ID}/compile", "OPTIONS, POST"),
        (f"/v1/algorithms/{ID}/versions", "GET, HEAD, OPTIONS, POST"),
        ("/v1/registries", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_options_tell_the_methods_of_what_the_address_can_only_mean(acme: Api, path: str, methods: str) -> None:
    assert acme.call("OPTIONS", path).headers["Allow"] == methods


def test_an_id_is_no_owner(acme: Api) -> None:
    response = acme.call("POST", f"/v1/algorithms/{ID}", {"name": "X", "details": {"label": "X"}})
    assert (response.status_code, response.headers["Allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PUT")


def test_credentials_for_a_repository_that_longshore_hosts_are_refused(acme: Api) -> None:
    body = {"name": "Hosted", "details": {"label": "Hosted"}}
    source = {"credentials": {"username": "u", "password": "p"}}
    acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", {**body, "source": source})
    acme.post("/v1/algorithms/acme", body)
    acme.expect_refusal(409, 2015, "PUT", "/v1/algorithms/acme/Hosted", {"source": source})
    acme.put("/v1/algorithms/acme/Hosted", {"source": {**ELSEWHERE, **source}})
    acme.put("/v1/algorithms/acme/Hosted", {"source": source})


def test_a_whole_number_may_be_written_with_a_point(acme: Api) -> None:
    path = acme.make_algorithm("acme", settings={"royalty_microcredits": 1.0})
    assert acme.get(path)["settings"]["royalty_microcredits"] == 1
    acme.expect_refusal(400, 2015, "PUT", path, {"settings": {"royalty_microcredits": 1.5}})
