"""Attacks of an owner on the environments of others."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from shared.cancellation import CancelToken, Deadline
from tests.directory_store import DirectoryStore
from tests.security import wheels
from tests.security.builds.conftest import Built
from tests.service.workers.builds.package_index import PackageIndex
from workers.builds.context import BuildContext, BuildLimits, BuildLog
from workers.builds.environment.container import build_container, name_prefix, remove_leftover_containers
from workers.builds.image import BuildRequest
from workers.images.image import derived_image, named_image

RequestFor = Callable[..., BuildRequest]


def test_a_pinned_wheel_that_hides_itself_is_not_served_to_another_owner(
    request_for: RequestFor, package_index: PackageIndex, built: Built, other: str
) -> None:
    line = wheels.add_to(package_index, "ghost", wheels.vanishing_wheel("ghost"))
    hostile, _ = built(request_for({"requirements.txt": line.encode()}))
    for files in ({}, {"requirements.txt": line.encode()}):
        served, _ = built(request_for(files, owner=other))
        assert served.environment_key != hostile.environment_key
    assert not served.environment_reused


def test_a_pinned_wheel_by_url_is_not_served_to_another_owner(
    request_for: RequestFor, package_index: PackageIndex, built: Built, other: str
) -> None:
    content = wheels.vanishing_wheel("linked")
    wheels.add_to(package_index, "linked", content)
    line = f"linked @ {package_index.url}linked/{wheels.file_name('linked')} --hash=sha256:{wheels.sha256(content)}"
    hostile, _ = built(request_for({"requirements.txt": line.encode()}))
    served, _ = built(request_for({"requirements.txt": line.encode()}, owner=other))
    assert not served.environment_reused
    assert served.environment_key != hostile.environment_key


@pytest.mark.parametrize("kit", ["", "other==1.0"])
def test_a_requirements_file_that_only_pip_reads_as_one_is_not_served_to_others(
    request_for: RequestFor, package_index: PackageIndex, built: Built, other: str, kit: str
) -> None:
    """pip decodes a file by the comment in its first line: what is a comment in UTF-8 is a requirement in UTF-7.

    So pip does not read a file that asks for nothing, or for the kit alone: its owner shares an environment.
    """
    wheels.add_to(package_index, "other", wheels.wheel("other", {"other.py": ""}))
    hidden = b"# -*- coding: utf-7 -*-\n# nothing+AAo-small+AD0APQ-1.0\n" + kit.encode()
    hostile, log = built(request_for({"requirements.txt": hidden}, kit_requirement=kit))
    assert "small" not in log
    served, _ = built(request_for({}, owner=other, kit_requirement=kit))
    assert served.environment_key == hostile.environment_key


def test_a_requirements_file_with_more_than_the_kit_is_its_owners(
    request_for: RequestFor, package_index: PackageIndex, built: Built, other: str
) -> None:
    wheels.add_to(package_index, "other", wheels.wheel("other", {"other.py": ""}))
    files = {"requirements.txt": b"other>=1.0\n"}
    first, _ = built(request_for(files, kit_requirement="other==1.0"))
    second, _ = built(request_for(files, owner=other, kit_requirement="other==1.0"))
    assert second.environment_key != first.environment_key


def test_owners_without_requirements_share_an_environment_without_code_of_owners(
    request_for: RequestFor, built: Built, other: str
) -> None:
    first, _ = built(request_for({}))
    second, _ = built(request_for({}, owner=other))
    assert second.environment_key == first.environment_key
    assert second.environment_reused


def test_an_environment_of_another_owner_is_not_used_even_by_its_name(
    request_for: RequestFor, built: Built, other: str, store: DirectoryStore
) -> None:
    """Names are what an older release, or a mistake, may have written; the owner stands in what they name."""
    files = {"requirements.txt": b"small==1.0\n"}
    theirs, _ = built(request_for(files))
    served, _ = built(request_for(files, owner=other, made_with=theirs.environment_key))
    assert not served.environment_reused

    ours = named_image(store, f"environment/{served.environment_key}")
    assert ours is not None
    ownerless = derived_image(
        store, ours, [], {}, {key: text for key, text in ours.manifest.annotations.items() if "owner" not in key}
    )
    store.name(f"environment/{served.environment_key}", ownerless.manifest.descriptor)
    _, log = built(request_for(files, owner=other, made_with=served.environment_key))
    assert "which the image had before" not in log


def test_a_restarted_build_removes_no_container_of_an_owner_whose_name_begins_alike(
    base_image: str, owner: str, tmp_path: Path
) -> None:
    """The names of an owner and of a commit are chosen by owners: together they must not be another owner's."""
    commit = "abcdef123456" + "0" * 28
    context = BuildContext(BuildLog(print, 0), CancelToken(), Deadline(120), tmp_path)
    limits = BuildLimits(1 << 28, 1.0, 64, 120, 1)
    victim = f"{owner}-abcdef123456"
    with build_container(base_image, victim, "none", limits, context, commit="f" * 40) as container:
        assert remove_leftover_containers(timedelta(seconds=-60), name_prefix(owner, commit)) == 0
        assert container.run(["true"], {}, "/", print) == 0
        assert remove_leftover_containers(timedelta(seconds=-60), name_prefix(victim, "f" * 40)) == 1
