"""A short chaos run, for `make test-long`; `make chaos` injects all faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEED = 202
"""The faults of this seed concern a worker, the engine, Redis, PostgreSQL, the registry, and a hostile owner."""


@pytest.mark.timeout(900)
def test_what_must_hold_holds_after_a_few_faults(tmp_path: Path) -> None:
    written = tmp_path / "summary.json"
    command = [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--jobs", "12", "--faults", "8"]
    done = subprocess.run(
        [*command, "--summary", str(written)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(written.read_text())
    assert report["violations"] == []
    assert report["accepted"] == report["calls"] == 12
    assert report["faults_injected"] + len(report["faults_skipped"]) == 8
