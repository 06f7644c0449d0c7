"""What is installed is left alone; what is missing and cannot be installed is said with the commands to run."""

import pytest

from dev.services.packages import ensure_programs, missing_packages, needed_programs
from dev.services.processes import ServiceFailedError


def test_a_program_that_is_there_misses_no_package() -> None:
    assert missing_packages({"sh": "dash", "no-such-program": "some-package"}) == ["some-package"]


def test_an_ordinary_user_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ServiceFailedError, match=r"apt-get install --no-install-recommends some-package"):
        ensure_programs({"no-such-program": "some-package"})


def test_a_named_engine_and_base_image_spare_their_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    monkeypatch.setenv("LONGSHORE_BASE_IMAGE", "some/image:1")
    assert {"dockerd", "mmdebstrap"}.isdisjoint(needed_programs("demo"))
    monkeypatch.delenv("LONGSHORE_BASE_IMAGE")
    assert "mmdebstrap" in needed_programs("demo")
