"""Any JSON as a body gets a response of the contract."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.api.invocation import Api
from tests.service.api.test_bad_input import BODIES, Setup

FIELDS = [
    "registry_url", "registry_username", "registry_password", "registry_auth", "name", "verify_tls", "plain_http",
    "ca_certificate", "details", "label", "summary", "settings", "language", "source", "repository_https_url",
    "credentials", "username", "password", "version_info", "version_type", "sample_input", "commitSha",
    "registry_push_credentials", "registry_id", "key_type", "key_label", "permissions", "algo_acl", "referer_host",
    "what", "nodes", "restart", "algorithm", "git_hash", "dry_run",
]  # fmt: skip
WORDS = ["registry.example.com", "localhost:1", "AlgorithmKey", "minor", "python3", "a" * 40, "acme/*", "Hello"]
WORDS += ["x", "runners"]

text = st.sampled_from(WORDS) | st.text(max_size=20) | st.characters(categories=["Cs", "Cc"])
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | text, inner, max_size=5),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)


def test_no_json_breaks(admin: Api, acme: Api, rival: Api) -> None:
    setup = Setup(admin, acme, rival)

    @settings(max_examples=80, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(BODIES), bodies)
    def throw(call: tuple[str, str], body: dict[str, Any]) -> None:
        method, path = call
        status, _code, _message = setup.send(method, path, body)
        assert status < 500

    throw()
