import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.registry.address import InvalidAddressError, RegistryAddress

LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
HOST = st.one_of(
    st.lists(LABEL, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "example"])),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.sampled_from(["localhost", "docker.io", "index.docker.io"]),
)
SEGMENT = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)


@st.composite
def registry_urls(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(["", "https://", "http://", "HTTPS://"]))
    port = draw(st.one_of(st.just(""), st.integers(1, 65535).map(lambda number: f":{number}")))
    path = "".join(f"/{segment}" for segment in draw(st.lists(SEGMENT, max_size=2)))
    return f"{scheme}{draw(HOST)}{port}{path}{draw(st.sampled_from(['', '/']))}"[:128].rstrip("-._:")


@given(registry_urls())
def test_a_canonical_address_is_the_same_when_it_is_parsed_again(url: str) -> None:
    canonical = RegistryAddress.parse(url).canonical
    assert RegistryAddress.parse(canonical).canonical == canonical


@given(registry_urls())
def test_an_address_is_the_same_when_it_is_written_and_parsed_again(url: str) -> None:
    address = RegistryAddress.parse(url)
    assert RegistryAddress.parse(str(address)) == address


@given(st.text(max_size=140))
def test_any_text_is_an_address_or_refused_with_a_message(text: str) -> None:
    try:
        address = RegistryAddress.parse(text)
    except InvalidAddressError as error:
        message = str(error)
    else:
        message = f"registry_url is {RegistryAddress.parse(str(address))}"
    assert message.startswith("registry_url")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("registry.example.com", ("https", "registry.example.com", None, "")),
        ("Registry.Example.COM:5000/team/images", ("https", "registry.example.com", 5000, "team/images")),
        ("https://registry.example.com/", ("https", "registry.example.com", None, "")),
        ("HTTP://registry.example.com/a", ("http", "registry.example.com", None, "a")),
        ("localhost", ("https", "localhost", None, "")),
        ("registry:5000", ("https", "registry", 5000, "")),
        ("[::1]:5000/a", ("https", "[::1]", 5000, "a")),
        ("10.1.2.3:5000", ("https", "10.1.2.3", 5000, "")),
        ("https://index.docker.io/v1/", ("https", "docker.io", None, "")),
    ],
)
def test_a_registry_url_is_parsed(url: str, expected: tuple[str, str, None, str] | tuple[str, str, int, str]) -> None:
    address = RegistryAddress.parse(url)
    assert (address.scheme, address.host, address.port, address.path) == expected


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("", "empty"),
        ("r.example.com/" + "a" * 128, "longer than 128"),
        ("registry", "Docker Hub"),
        ("https://registry/team", "registry:443"),
        ("user:hunter2@registry.example.com", "registry_username"),
        ("https://hunter2@registry.example.com", "registry_username"),
        ("registry.example.com?token=hunter2", "query"),
        ("registry.example.com/a#b", "fragment"),
        ("registry.example.com/a b", "space"),
        (" registry.example.com", "space"),
        ("registry.example.com\n", "control character"),
        ("registry.example.com\t/a", "control character"),
        ("registry.example.com/\x7f", "control character"),
        ("registry.example.com/..", "'..'"),
        ("registry.example.com/../a", "'..'"),
        ("registry.example.com/./a", "'.'"),
        ("registry.example.com//a", "empty part"),
        ("registry.example.com/a//", "empty part"),
        ("registry.example.com\\a", "backslash"),
        ("registry.example.com/%61", "percent"),
        ("regístry.example.com", "ASCII"),
        ("registry.example.com/Team", "write 'team'"),
        ("registry.example.com/-a", "no repository name may have"),
        ("registry.example.com/a___b", "no repository name may have"),
        ("registry.example.com/a:tag", "no repository name may have"),
        ("registry.example.com:0", "1 to 65535"),
        ("registry.example.com:65536", "1 to 65535"),
        ("registry.example.com:", "1 to 65535"),
        ("registry.example.com:http", "1 to 65535"),
        ("my_registry.example.com", "not a host name"),
        ("-a.example.com", "not a host name"),
        ("a..example.com", "not a host name"),
        ("registry.example.com.", "not a host name"),
        ("a" * 64 + ".example.com", "not a host name"),
        ("127.1", "IPv4"),
        ("0x7f.0.0.0x1", "IPv4"),
        ("300.1.1.1", "IPv4"),
        ("[::g]", "IPv6"),
        ("::1", "brackets"),
        ("ftp://registry.example.com", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("https://", "no host"),
        ("/a", "no host"),
    ],
)
def test_an_invalid_registry_url_is_refused_with_the_reason(url: str, because: str) -> None:
    with pytest.raises(InvalidAddressError, match=r"^registry_url") as caught:
        RegistryAddress.parse(url)
    assert because in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://registry.example.com", "localhost:5000", "127.0.0.1:5000", "[::1]:5000"])
def test_plain_http_is_for_an_http_url_or_a_loopback_host(url: str) -> None:
    address = RegistryAddress.parse(url, plain_http=True)
    assert address.plain_http
    assert address.origin.startswith("http://")


@pytest.mark.parametrize("url", ["registry.example.com", "https://registry.example.com", "https://localhost:5000"])
def test_plain_http_is_refused_elsewhere(url: str) -> None:
    with pytest.raises(InvalidAddressError, match=r"^plain_http"):
        RegistryAddress.parse(url, plain_http=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("registry.example.com", "https://REGISTRY.example.com:443/"),
        ("http://registry.example.com", "registry.example.com:80"),
        ("docker.io/team", "https://index.docker.io/team/"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_one_registry_in_two_spellings(one: str, other: str) -> None:
    assert RegistryAddress.parse(one).canonical == RegistryAddress.parse(other).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("registry.example.com", "registry.example.com:5000"),
        ("registry.example.com", "http://registry.example.com"),
        ("registry.example.com/a", "registry.example.com/b"),
    ],
)
def test_two_registries(one: str, other: str) -> None:
    assert RegistryAddress.parse(one).canonical != RegistryAddress.parse(other).canonical


def test_requests_to_docker_hub_go_to_its_api() -> None:
    assert RegistryAddress.parse("docker.io/team").origin == "https://registry-1.docker.io:443"


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("localhost", True),
        ("127.8.9.1:1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("x.localhost", False),
    ],
)
def test_loopback_hosts(url: str, loopback: bool) -> None:
    assert RegistryAddress.parse(url).is_loopback is loopback
