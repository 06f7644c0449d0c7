"""The patterns in the OpenAPI document match exactly what the parsers of addresses accept."""

import re

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from api.schemas import patterns
from shared.git.repository_url import MAX_URL, RepositoryUrl
from shared.registry.address import MAX_LENGTH, RegistryAddress
from shared.settings import Settings

# Examples are not shrunk: the patterns are long, and a failing address is readable as it is.
PHASES = [Phase.explicit, Phase.generate]
SOME = settings(max_examples=20, deadline=None, database=None, derandomize=True, phases=PHASES)


def written_so(pattern: str, longest: int) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(
        lambda text: len(text) <= longest and not text.endswith("\n")
    )


@SOME
@given(written_so(patterns.REGISTRY_URL, MAX_LENGTH))
def test_what_the_document_calls_a_registry_is_one(url: str) -> None:
    assert RegistryAddress.parse(url).host


@SOME
@given(written_so(patterns.PLAIN_HTTP_URL, MAX_LENGTH))
def test_where_the_document_allows_plain_http_it_is_taken(url: str) -> None:
    assert RegistryAddress.parse(url, plain_http=True).plain_http


@SOME
@given(st.data())
@pytest.mark.parametrize("ssh", [False, True])
@pytest.mark.parametrize("http", [False, True])
def test_what_the_document_calls_a_repository_is_one(
    tmp_path_factory: pytest.TempPathFactory, http: bool, ssh: bool, data: st.DataObject
) -> None:
    known_hosts = tmp_path_factory.getbasetemp() / "known_hosts"
    known_hosts.touch()
    configured = Settings(source_allow_http=http, source_ssh_known_hosts=known_hosts if ssh else None)
    url = data.draw(written_so(patterns.repository_url(configured), MAX_URL - 10))
    assert not url or RepositoryUrl.parse(url, allow_http=http, allow_ssh=ssh).host


@pytest.mark.parametrize(
    "url",
    [
        "registry.example.com", "Registry.Example.com:5000/team", "localhost", "localhost:5000", "registry:5000",
        "127.0.0.1:5000/a/b", "[::1]:5000", "[2001:db8::1]", "https://r.example.com/a-b/c__d/e.f/", "http://r.io",
    ],
)  # fmt: skip
def test_registries_are_written_so(url: str) -> None:
    RegistryAddress.parse(url)
    assert re.search(patterns.REGISTRY_URL, url)


@pytest.mark.parametrize(
    "url",
    [
        "", "registry", "r.example.com:0", "r.example.com:65536", "ftp://r.example.com", "r.example.com/A",
        "r.io//a", "user@r.example.com", "r.example.com/a?b", "r example.com", "127.1", "256.0.0.1", "-r.example.com",
        "[::1", "r..io",
    ],
)  # fmt: skip
def test_other_texts_are_not(url: str) -> None:
    with pytest.raises(ValueError, match="registry_url"):
        RegistryAddress.parse(url)
    assert not re.search(patterns.REGISTRY_URL, url)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("username", "alice", True),
        ("username", "00000000-0000-4000-8000-000000000000", False),
        ("algorithm_id", "00000000-0000-4000-8000-000000000000", True),
        ("algorithm_id", "alice", False),
        ("name", "Hello", True),
        ("name", "compile", False),
        ("git_hash", "0123abC", True),
        ("git_hash", "main", False),
        ("filename", "anything at all", True),
    ],
)
def test_what_stands_in_an_address(name: str, value: str, fits: bool) -> None:
    assert patterns.matches_path_parameter(name, value) is fits
