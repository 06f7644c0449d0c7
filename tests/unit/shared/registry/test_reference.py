import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.registry.address import RegistryAddress
from shared.registry.reference import (
    InvalidReferenceError,
    canonical_repository,
    image_repository,
    is_digest,
    is_repository_path,
    is_tag,
    normalize_name,
    repository_path,
)
from tests.unit.shared.registry.test_address import SEGMENT, registry_urls

# The distribution spec's <name>, written again here so that the module's own copy is checked against it.
NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
DIGEST = "sha256:" + "0123456789abcdef" * 4

identifiers = st.from_regex(r"[A-Za-z0-9_]{1,30}", fullmatch=True)


@given(registry_urls(), identifiers, identifiers)
def test_the_repository_of_an_algorithm_is_always_a_valid_name(url: str, owner: str, name: str) -> None:
    address = RegistryAddress.parse(url)
    repository = image_repository(address, owner, name)
    host, _, path = repository.partition("/")
    assert host == address.authority
    assert path == repository_path(address, owner, name)
    assert re.fullmatch(NAME, path)


@given(st.text(max_size=40))
def test_a_normalized_name_is_valid_and_stays_as_it_is(text: str) -> None:
    assert re.fullmatch(NAME, normalize_name(text))
    assert normalize_name(normalize_name(text)) == normalize_name(text)


@given(SEGMENT)
def test_a_valid_name_is_not_changed(name: str) -> None:
    assert normalize_name(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Hello", "hello"),
        ("_private_", "private"),
        ("a___b", "a__b"),
        ("a__b", "a__b"),
        ("a_.b", "a_b"),
        ("a..b", "a.b"),
        ("a---b", "a---b"),
        ("Ünder score", "nder_score"),
        ("___", "x"),
        ("", "x"),
    ],
)
def test_names_are_normalized(name: str, expected: str) -> None:
    assert normalize_name(name) == expected


def test_the_canonical_repository_does_not_depend_on_the_spelling_of_the_registry() -> None:
    urls = ["registry.example.com/a", "https://Registry.example.com:443/a/"]
    assert {canonical_repository(RegistryAddress.parse(each), "Team", "Hello") for each in urls} == {
        "registry.example.com/a/team/hello"
    }


def test_a_repository_name_too_long_for_an_engine_is_refused() -> None:
    with pytest.raises(InvalidReferenceError, match="255"):
        image_repository(RegistryAddress.parse("registry.example.com"), "o" * 120, "n" * 120)


@pytest.mark.parametrize(
    ("text", "valid"),
    [("1.2.3", True), ("c" * 40, True), ("_x", True), ("", False), (".x", False), ("a b", False), ("x" * 129, False)],
)
def test_tags(text: str, valid: bool) -> None:
    assert is_tag(text) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [(DIGEST, True), (DIGEST.upper(), False), (DIGEST[:-1], False), (DIGEST + "\n", False), ("md5:" + "0" * 32, False)],
)
def test_digests(text: str, valid: bool) -> None:
    assert is_digest(text) is valid


@pytest.mark.parametrize(
    ("text", "valid"), [("a/b", True), ("", False), ("a//b", False), ("A/b", False), ("a/..", False)]
)
def test_repository_paths(text: str, valid: bool) -> None:
    assert is_repository_path(text) is valid
