"""A short run of schemathesis, for `make test-long`; `make conformance EXAMPLES=5000` is a long one."""

from pathlib import Path

from tests.conformance.against import examples_in, run_schemathesis
from tests.service.cli.running import longshore_up


def test_each_rule_of_the_document_on_sqlite(tmp_path: Path) -> None:
    with longshore_up(tmp_path) as up:
        # Paths with names only; the test below also uses the paths with ids, which have the same views.
        done = run_schemathesis(up, tmp_path, "--phases", "coverage", "--exclude-path-regex", r"\{algorithm_id\}")
    assert done.returncode == 0, done.stdout[-20_000:]
    assert examples_in(done.stdout) > 1000


def test_requests_that_build_on_each_other_on_postgresql(tmp_path: Path, empty_postgres_url: str) -> None:
    with longshore_up(tmp_path, LONGSHORE_DATABASE_URL=empty_postgres_url) as up:
        options = ("--phases", "fuzzing,stateful", "--max-examples", "3", "--no-shrink")
        done = run_schemathesis(up, tmp_path, *options)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert examples_in(done.stdout) > 100
