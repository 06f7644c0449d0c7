"""LONGSHORE_SCMS is read completely, or refused with a sentence that names the entry and the field."""

import json

import pytest

from shared.settings import SettingsError, load_settings

GOOD = {"id": "gh", "provider": "github"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("github", "must be a JSON array"),
        ("{}", "must be a JSON array"),
        (json.dumps([1]), "entry 1: it: must be an object"),
        (json.dumps([GOOD, {"provider": "github"}]), "entry 2: id: "),
        (json.dumps([{**GOOD, "id": "internal"}]), "internal is the id"),
        (json.dumps([{**GOOD, "id": "a b"}]), "entry 1: id: "),
        (json.dumps([{**GOOD, "provider": "svn"}]), "entry 1: "),
        (json.dumps([{**GOOD, "provider": "bitbucket"}]), "urls.web must be"),
        (json.dumps([{**GOOD, "urls": {"web": "https://user:hidden@github.com"}}]), "urls.web must be"),
        (json.dumps([{**GOOD, "urls": {"web": "file:///etc"}}]), "urls.web must be"),
        (json.dumps([{**GOOD, "secret": "hidden"}]), "entry 1: secret: "),
        (json.dumps([GOOD, GOOD]), "an id twice"),
        (json.dumps([{**GOOD, "id": f"gh{number}"} for number in range(101)]), "at most 100"),
    ],
)
def test_what_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv("LONGSHORE_SCMS", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value).startswith("LONGSHORE_SCMS: ")
    assert said in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_what_is_left_out_follows_from_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [GOOD, {"id": "ours", "provider": "github", "urls": {"web": "https://git.example.com:8443/"}}]
    monkeypatch.setenv("LONGSHORE_SCMS", json.dumps(entries))
    public, ours = load_settings().scms
    assert (public.name, public.enabled, public.urls.web) == ("gh", True, "https://github.com")
    assert ours.urls.model_dump() == {
        "web": "https://git.example.com:8443",
        "api": "https://git.example.com:8443/api/v3",
        "ssh": "ssh://git@git.example.com",
    }
    assert load_settings().described()
