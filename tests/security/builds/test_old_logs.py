"""A hostile owner compiles again and again, with the longest logs that a build may write."""

import pytest

from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, columns_of, compile_commit
from workers.builds.build import BuildWork
from workers.builds.build_log import REMOVED
from workers.jobs.executor import run_job


@pytest.mark.usefixtures("installation", "broker")
def test_the_logs_of_an_owner_do_not_fill_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_BUILD_LOGS_PER_OWNER", "2")
    settings.cache_clear()
    algorithm, others = make_algorithm(), make_algorithm()
    builds = [build_commit(algorithm, f"{number}" * 40) for number in range(1, 5)]
    other = build_commit(others)
    for build in [*builds, other]:
        change(build, log="long\n", load_check="failed", load_check_traceback="long")
    run_job(compile_commit(algorithm, "f" * 40).job.id, BuildWork)  # it fails: there is no git service
    assert [columns_of(build)["log"] for build in [*builds, other]] == [REMOVED, REMOVED, "long\n", "long\n", "long\n"]
    tracebacks = [columns_of(build)["load_check_traceback"] for build in [*builds, other]]
    assert tracebacks == [None, None, "long", "long", "long"]
