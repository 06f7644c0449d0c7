"""Progress of a push, from the events of the engine."""

from typing import Any

import pytest

from shared.pushes.progress import Progress
from workers.docker.push import EngineProgress


def pushing(layer: str, current: int, total: int) -> dict[str, object]:
    return {"id": layer, "status": "Pushing", "progressDetail": {"current": current, "total": total}}


def status(layer: str, text: str) -> dict[str, object]:
    return {"id": layer, "status": text, "progressDetail": {}}


START = [
    {"status": "The push refers to repository [127.0.0.1:5000/a/b]"},
    status("aa", "Preparing"),
    status("bb", "Preparing"),
    status("cc", "Preparing"),
    status("cc", "Waiting"),
]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], Progress(0, 0, 0, 3)),
        ([pushing("aa", 10, 100)], Progress(10, 100, 0, 3)),
        ([pushing("aa", 10, 100), pushing("bb", 7, 50)], Progress(17, 150, 0, 3)),
        ([pushing("aa", 112, 100)], Progress(100, 100, 0, 3)),
        ([pushing("aa", 40, 100), status("aa", "Pushed")], Progress(100, 100, 1, 3)),
        ([status("aa", "Layer already exists"), status("bb", "Mounted from x/y")], Progress(0, 0, 2, 3)),
        ([pushing("aa", 90, 100), status("aa", "Retrying in 5 seconds")], Progress(0, 100, 0, 3)),
        ([pushing("aa", 1, 0), {"id": "aa", "status": "Pushing"}], Progress(0, 0, 0, 3)),
        ([{"progressDetail": {}, "aux": {"Tag": "1", "Digest": "sha256:x", "Size": 5}}], Progress(0, 0, 0, 3)),
    ],
)
def test_the_sum_of_the_layers(events: list[Any], expected: Progress) -> None:
    progress = EngineProgress()
    for event in [*START, *events]:
        progress.add(event)
    assert progress.total() == expected
