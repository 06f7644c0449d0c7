"""A process that is forked while the parent's health thread works can itself work."""

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

FORKS_DURING_A_PING = """
import os, socket, threading
from shared.db.engine import database
from workers.health import WorkerHealth

with socket.create_server(("127.0.0.1", 0)) as silent:
    os.environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
    health = threading.Thread(target=WorkerHealth(database(), "worker", ["builds"]).problem)
    health.start()
    connection, _address = silent.accept()
    child = os.fork()
    if child == 0:
        os._exit(0)
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
        print("the ping had ended")
    except BlockingIOError:
        print("the ping was in progress")
    os.waitpid(child, 0)
    connection.close()
    health.join()
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[3],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_forked_process_can_write(tmp_path: Path) -> None:
    assert run(FORKS_AMID_TRANSACTIONS, f"sqlite:///{tmp_path / 'forks.db'}") == "20"


def test_no_process_is_forked_while_the_engine_is_asked() -> None:
    """It would wait forever for the locks of modules that were being imported."""
    assert run(FORKS_DURING_A_PING) == "the ping had ended"
