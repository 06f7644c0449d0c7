"""Check what can be checked of the documents: their width, links, the files that they name, and the glossary's size."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_COLUMNS = 140
MAX_GLOSSARY_ENTRIES = 25
FILE = re.compile(r"`((?:api|cli|deploy|dev|migrations|shared|tests|workers)/[\w./-]+)`")
TEST = re.compile(r"`(tests/[\w./-]+\.py)::(\w+)`")
SHORT_TEST = re.compile(r"`((?!tests/)[\w./-]+\.py)::(\w+)`")
CLIENT_TESTS = ROOT / "tests" / "acceptance" / "clients"
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def name_of(document: Path) -> str:
    return document.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_line_is_too_long(document: Path) -> None:
    lines = enumerate(document.read_text().splitlines(), start=1)
    assert [number for number, line in lines if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_what_it_links_to_and_the_files_that_it_names_exist(document: Path) -> None:
    text = document.read_text()
    named = [document.parent / target for target in LINK.findall(text)]
    named += [ROOT / path for path in FILE.findall(text)]
    assert [str(path.relative_to(ROOT)) for path in named if not path.exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_tests_that_it_names_exist(document: Path) -> None:
    named = TEST.findall(document.read_text())
    assert [f"{file}::{test}" for file, test in named if not _has_test(ROOT / file, test)] == []


def test_each_promise_of_security_names_a_test() -> None:
    promised = (ROOT / "docs" / "security.md").read_text().partition("## What is promised")[2].partition("\n## ")[0]
    promises = re.split(r"^- ", promised, flags=re.MULTILINE)[1:]
    assert promises
    assert [promise.splitlines()[0] for promise in promises if not TEST.search(promise)] == []


def operations() -> list[list[str]]:
    """Return the cells of each operation in the page on compatibility."""
    page = (ROOT / "docs" / "compatibility.md").read_text()
    tables = page.partition("## Operations")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in tables.splitlines() if row.startswith("| ")]
    return [row for row in rows if row[1] != "there"]


def test_each_operation_is_there_partly_there_or_not() -> None:
    assert operations()
    assert [row for row in operations() if len(row) != 3 or row[1] not in ("yes", "partly", "no")] == []


def test_each_operation_that_is_there_names_a_test() -> None:
    untested = [row[0] for row in operations() if row[1] != "no" and not SHORT_TEST.search(row[2])]
    assert untested == []


def test_the_tests_of_the_operations_exist() -> None:
    named = [test for row in operations() for test in SHORT_TEST.findall(row[2])]
    directories = {"/": ROOT / "tests", "": CLIENT_TESTS}
    assert [
        f"{file}::{test}" for file, test in named if not _has_test(directories["/" if "/" in file else ""] / file, test)
    ] == []


def test_the_glossary_is_short_and_in_order() -> None:
    rows = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    words = [row.split("|")[1].strip() for row in rows if row.startswith("| ") and not row.startswith("| word |")]
    assert 0 < len(words) <= MAX_GLOSSARY_ENTRIES
    assert words == sorted(words)


def _has_test(file: Path, test: str) -> bool:
    return file.is_file() and re.search(rf"^ *def {test}\(", file.read_text(), re.MULTILINE) is not None
