"""A process that is forked while the parent's health thread writes can itself write."""

import os
import subprocess
import sys
from pathlib import Path

FORKS_AMID_TRANSACTIONS = """
import os, sys, threading
from sqlalchemy import text
from shared.db.engine import Database
from workers.app import opened_between_forks

database = Database(sys.argv[1])
with database.writing() as session:
    session.execute(text("CREATE TABLE written (number INTEGER)"))
database.close()
ended = threading.Event()

def write_again_and_again():
    while not ended.is_set():
        with opened_between_forks(database) as opened, opened.writing() as session:
            session.execute(text("INSERT INTO written VALUES (0)"))

thread = threading.Thread(target=write_again_and_again)
thread.start()
try:
    for number in range(1, 21):
        child = os.fork()
        if child == 0:
            try:
                with database.writing() as session:
                    session.execute(text(f"INSERT INTO written VALUES ({number})"))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, f"child {number} could not write"
finally:
    ended.set()
    thread.join()
with database.reading() as session:
    print(session.scalar(text("SELECT count(*) FROM written WHERE number > 0")))
"""


def test_every_forked_process_can_write(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'forks.db'}"
    done = subprocess.run(
        [sys.executable, "-c", FORKS_AMID_TRANSACTIONS, url],
        cwd=Path(__file__).parents[3],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "20"
