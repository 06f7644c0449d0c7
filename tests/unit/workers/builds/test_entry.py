"""Which module of a source is the algorithm."""

import io
import json
from pathlib import Path

import pytest

from shared.errors import ErrorClass, WorkError
from tests.unit.workers.builds.sources import archive_of
from workers.builds.entry import MAX_CONFIGURATION_BYTES, MAX_MODULE_BYTES, find_entry
from workers.builds.source_tree import open_source_tree

APPLY = b"def apply(input):\n    return input\n"


def found(files: dict[str, bytes], name: str = "Hello", links: dict[str, str] | None = None) -> tuple[str, list[str]]:
    log: list[str] = []
    with open_source_tree(io.BytesIO(archive_of(files, links=links))) as tree:
        return find_entry(tree, name, log.append), log


def configuration(algoname: object) -> bytes:
    return json.dumps({"username": "alice", "algoname": algoname, "language": "python3"}).encode()


@pytest.mark.parametrize(
    ("files", "module"),
    [
        ({"src/Hello.py": b""}, "Hello"),
        ({"src/Hello.py": b"def broken(:"}, "Hello"),
        ({"src/Hello.py": b"", "src/Algorithm.py": APPLY, "src/other.py": APPLY}, "Hello"),
        ({"src/Algorithm.py": b"", "src/other.py": APPLY}, "Algorithm"),
        ({"algorithmia.conf": configuration("Other"), "src/Other.py": b"", "src/Hello.py": APPLY}, "Other"),
        ({"algorithmia.conf": configuration("Other"), "src/Hello.py": b""}, "Hello"),
        ({"src/hello.py": APPLY, "src/helper.py": b"def work(): pass"}, "hello"),
        ({"src/hello.py": APPLY, "src/hello_test.py": b"from .hello import apply", "src/__init__.py": APPLY}, "hello"),
        ({"src/a.py": b"from .b import work as apply", "src/b.py": b"def work(): pass"}, "a"),
        ({"src/a.py": b"apply = lambda input: input", "src/b.py": b"x: int\napply: object"}, "a"),
        ({"src/a.py": b"try:\n    import x\nexcept ImportError:\n    def apply(i): pass", "src/b.py": b""}, "a"),
        ({"src/a.py": b"class A:\n    def apply(self): pass", "src/b.py": b"if 1:\n    async def apply(i): pass"}, "b"),
        ({"src/a.py": b"print 'Python 2'\ndef apply(input): pass", "src/b.py": b""}, "a"),
        ({"src/a.py": b"def work(i): pass\nADK(work).init('x')", "src/b.py": b"import ADK"}, "a"),
        ({"src/a.py": b"s = Algorithmia.handler(f)", "src/b.py": b"handler = 1"}, "a"),
    ],
)
def test_the_entry(files: dict[str, bytes], module: str) -> None:
    assert found(files)[0] == module


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"algoname: Other", "it is not JSON"),
        (b"[" * 50_000, "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b" " * (MAX_CONFIGURATION_BYTES + 1), "it has more than 65536 bytes"),
        (configuration("../../etc/x"), "its algoname is not the name of a module"),
        (configuration("Other.py\n"), "its algoname is not the name of a module"),
        (configuration(["Other"]), "its algoname is not the name of a module"),
    ],
)
def test_a_file_of_the_platform_that_cannot_be_used_is_ignored_and_the_log_says_so(content: bytes, reason: str) -> None:
    module, log = found({"algorithmia.conf": content, "src/Hello.py": b"", "src/Other.py": b""})
    assert module == "Hello"
    assert log == [f"algorithmia.conf is ignored: {reason}."]


def test_a_link_is_no_file_of_the_platform_and_no_module() -> None:
    links = {"algorithmia.conf": "/etc/passwd", "src/Algorithm.py": "/etc/passwd"}
    module, log = found({"src/main.py": APPLY}, links=links)
    assert module == "main"
    assert log == [
        "algorithmia.conf is ignored: it is not a regular file.",
        "The algorithm's module is src/main.py, the only one that has apply.",
    ]


def test_json_that_says_nothing_is_no_problem() -> None:
    assert found({"algorithmia.conf": b'{"username": "alice"}', "src/Hello.py": b""}) == ("Hello", [])
    assert found({"algorithmia.conf": b"[]", "src/Hello.py": b""}) == ("Hello", [])


def test_a_name_that_is_not_there_is_told() -> None:
    files = {"algorithmia.conf": configuration("Gone"), "src/Hello.py": b""}
    assert found(files)[1] == ["The algoname in algorithmia.conf is ignored: there is no src/Gone.py."]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"src/a.py": APPLY, "src/b.py": APPLY, "src/c.py": b""},
            r"be the algorithm: src/a\.py, src/b\.py\. Name",
        ),
        ({"src/a.py": b"", "src/b.txt": b""}, "has no src/Hello.py: in src there is: a.py, b.txt, and no module with"),
        ({"Hello.py": APPLY}, r"no directory src \(at the top there is: Hello\.py\)"),
        ({"src/Hello.py/x": b""}, "has no src/Hello.py: it is not a regular file"),
        ({"algorithmia.conf": configuration("Gone"), "src/a.py": b""}, r"\(nor src/Gone\.py, which algorithmia\.conf"),
        ({"src/a.py": APPLY + b"#" * MAX_MODULE_BYTES}, "no module with a function apply"),
        ({"src/-a.py": APPLY, "src/ b.py": APPLY}, "no module with a function apply"),
        ({"src/a.py": b"(" * 100_000, "src/b.py": b"if 1: pass\n" + b"elif 1: pass\n" * 9000}, "no module with"),
    ],
)
def test_a_source_without_an_entry_says_what_to_do(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(WorkError, match=message) as raised:
        found(files)
    assert raised.value.error_class == ErrorClass.INVALID


def test_nothing_of_the_source_runs(tmp_path: Path) -> None:
    text = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef apply(input): pass\n".encode()
    assert found({"src/a.py": text, "src/b.py": b"import a"})[0] == "a"
    assert not (tmp_path / "ran").exists()
