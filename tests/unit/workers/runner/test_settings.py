import pytest

from workers.runner.settings import SettingsError, algorithm_environment, settings_from


def test_defaults(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = settings_from({"LONGSHORE_ALGORITHM_NAME": "Hello"})
    assert (settings.port, settings.socket_path, settings.max_request_bytes) == (8080, None, 10 * 1024 * 1024)
    assert settings.source_directory == str(tmp_path)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "LONGSHORE_ALGORITHM_NAME"),
        ({"LONGSHORE_ALGORITHM_NAME": "../Hello"}, "LONGSHORE_ALGORITHM_NAME"),
        ({"LONGSHORE_ALGORITHM_NAME": "A", "LONGSHORE_PORT": "65536"}, "up to 65535"),
        ({"LONGSHORE_ALGORITHM_NAME": "A", "LONGSHORE_PORT": "0"}, "nothing to serve on"),
        ({"LONGSHORE_ALGORITHM_NAME": "A", "LONGSHORE_SOCKET_SEALED": "1"}, "no path to seal"),
        ({"LONGSHORE_ALGORITHM_NAME": "A", "LONGSHORE_MAX_REQUEST_BYTES": "-1"}, "LONGSHORE_MAX_REQUEST_BYTES"),
    ],
)
def test_what_is_wrong_is_named(environment, says):
    with pytest.raises(SettingsError, match=says):
        settings_from(environment)


def test_a_home_that_can_be_written_stays(tmp_path):
    assert algorithm_environment({"HOME": str(tmp_path), "LANG": "de_DE.UTF-8"}) == {
        "HOME": str(tmp_path),
        "LANG": "de_DE.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def test_without_a_home_it_is_a_place_that_can_be_written():
    assert algorithm_environment({})["HOME"] == "/tmp"
