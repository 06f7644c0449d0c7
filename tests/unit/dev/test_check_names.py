"""The check of replaced names finds a name wherever it can stand in code, and only there."""

from pathlib import Path

import pytest

from dev.check_names import check_tree

TABLE = """
[[identifier]]
old = ["Replaced"]
new = "JobMessage"

[[identifier]]
old = ["answer"]
new = "response"
in = ["shared"]
except = ["shared/old.py"]

[[pattern]]
old = 'the_[a-z]+'
new = "the bare word"
strings = true

[[module]]
old = ["shared/orders"]
new = "shared/commands"
"""


def uses(root: Path, code: str, path: str = "shared/new.py") -> list[str]:
    """Return the names that are reported of a tree with this one file."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(code)
    table = root / "names.toml"
    table.write_text(TABLE)
    return [use.name for use in check_tree(root, ("shared", "api"), table)]


@pytest.mark.parametrize(
    "code",
    [
        "Replaced = 1",
        "class Replaced: ...",
        "def Replaced(): ...",
        "def f(Replaced): ...",
        "f(Replaced=1)",
        "a.Replaced",
        "from a import Replaced",
        "import a as Replaced",
        "async def f(*, Replaced): ...",
    ],
)
def test_a_replaced_name_is_found(tmp_path: Path, code: str) -> None:
    assert uses(tmp_path, code) == ["Replaced"]


def test_texts_and_comments_do_not_count(tmp_path: Path) -> None:
    assert uses(tmp_path, '"""A Replaced."""\n# Replaced\nx = "Replaced"') == []


def test_a_rule_can_hold_in_some_folders_only(tmp_path: Path) -> None:
    assert uses(tmp_path, "answer = 1", "api/new.py") == []
    assert uses(tmp_path, "answer = 1", "shared/old.py") == []
    assert uses(tmp_path, "answer = 1") == ["answer"]


def test_a_rule_can_be_about_strings_too(tmp_path: Path) -> None:
    assert uses(tmp_path, 'bindparam("the_job")') == ["the_job"]


def test_a_replaced_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "shared/orders").mkdir(parents=True)
    assert uses(tmp_path, "") == ["shared/orders"]
