"""A requirements file is read line by line; an invalid line is named."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ErrorClass, WorkError
from tests.unit.workers.builds.sources import archive_of
from workers.builds.environment.requirements import NO_REQUIREMENTS, RequirementKind, Requirements, read_requirements
from workers.builds.source_tree import open_source_tree


def requirements_of(text: str | bytes, **files: str) -> Requirements:
    content = text.encode() if isinstance(text, str) else text
    others = {name.replace("__", "/") + ".txt": other.encode() for name, other in files.items()}
    with open_source_tree(io.BytesIO(archive_of({"requirements.txt": content, **others}))) as tree:
        return read_requirements(tree)


def test_a_source_without_the_file_requires_nothing() -> None:
    with open_source_tree(io.BytesIO(archive_of({"src/A.py": b""}))) as tree:
        found = read_requirements(tree)
    assert (found.lines, found.files, found.shareable) == ((), {}, True)


@pytest.mark.parametrize("text", ["", "# nothing\n\n", "# kit\nalgorithmia>=2,<3  # the kit\n", "-r more.txt\n"])
def test_a_file_that_asks_for_nothing_but_the_kit_is_never_read_by_pip(text: str) -> None:
    content = {"requirements.txt": text.encode(), "more.txt": b"# nothing here either\n"}
    with open_source_tree(io.BytesIO(archive_of(content))) as tree:
        assert read_requirements(tree, "algorithmia>=2,<3") == NO_REQUIREMENTS
        assert (read_requirements(tree, "algorithmia>=3") == NO_REQUIREMENTS) == ("algorithmia" not in text)


@pytest.mark.parametrize("more", ["small==1.0", "--pre", "algorithmia>=1.0", "-c more.txt"])
def test_a_file_that_asks_for_more_than_the_kit_is_read(more: str) -> None:
    text = f"algorithmia>=2,<3\n{more}\n"
    with open_source_tree(io.BytesIO(archive_of({"requirements.txt": text.encode(), "more.txt": b"six<1\n"}))) as tree:
        assert read_requirements(tree, "algorithmia>=2,<3") != NO_REQUIREMENTS


@pytest.mark.parametrize(
    ("line", "kind", "name"),
    [
        ("numpy", RequirementKind.HOSTED, "numpy"),
        ("NumPy_Extra[all]>=1,<2 ; python_version > '3'", RequirementKind.HOSTED, "numpy-extra"),
        ("pkg @ https://example.com/pkg-1.whl", RequirementKind.HOSTED, "pkg"),
        ("https://example.com/pkg-1.tar.gz", RequirementKind.HOSTED, None),
        (".", RequirementKind.LOCAL, None),
        ("./pkg[extra]", RequirementKind.LOCAL, None),
        ("vendor/pkg", RequirementKind.LOCAL, None),
        ("pkg-1.0-py3-none-any.whl", RequirementKind.LOCAL, None),
        ("file:///opt/algorithm/pkg", RequirementKind.LOCAL, None),
        ("pkg @ file:///opt/algorithm/pkg", RequirementKind.LOCAL, "pkg"),
        ("-e .", RequirementKind.LOCAL, None),
        ("--editable=./pkg", RequirementKind.LOCAL, None),
        ("--find-links wheels", RequirementKind.LOCAL, None),
        ("git+https://example.com/a.git@v1#egg=Some_Name", RequirementKind.VCS, "some-name"),
        ("pkg @ git+ssh://git@example.com/a.git", RequirementKind.VCS, "pkg"),
        ("-e git+https://example.com/a.git#egg=a", RequirementKind.VCS, "a"),
        ("--index-url https://example.com/simple", RequirementKind.OPTION, None),
        ("-ihttps://example.com/simple", RequirementKind.OPTION, None),
        ("--pre", RequirementKind.OPTION, None),
    ],
)
def test_the_kind_of_a_line(line: str, kind: RequirementKind, name: str | None) -> None:
    (found,) = requirements_of(line).lines
    assert (found.kind, found.name) == (kind, name)
    assert requirements_of(line).shareable == (kind in {RequirementKind.HOSTED, RequirementKind.OPTION})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("numpy\n\n# fine\nx ==\n", "requirements.txt line 4: 'x ==' cannot be read: "),
        ("a\nthis is no requirement\n", "requirements.txt line 2: 'this is no requirement' cannot be read: "),
        ("a\nb \\\n  ==1\n--frobnicate yes\n", "requirements.txt line 4: '--frobnicate' is not an option"),
        ("-r\n", "requirements.txt line 1: '-r' is not an option"),
        ('a\n--index-url "x\n', "requirements.txt line 2: '--index-url \"x' cannot be read: "),
        ("-r missing.txt\n", "requirements.txt line 1: missing.txt is not a regular file of the source"),
        ("a\n-r ../up.txt\n", "requirements.txt line 2: --requirement names a file outside of the source"),
        ("-c /etc/passwd\n", "requirements.txt line 1: --constraint names a file outside of the source"),
        ("-r https://example.com/r.txt\n", "requirements.txt line 1: --requirement can only name a file of the source"),
        ("a\n--extra-index-url https://example.com/${PIP_INDEX_URL}\n", "requirements.txt line 2: a build has no env"),
        (b"\xff\xfea", "requirements.txt: requirements.txt is not UTF-16-LE text (byte 0)"),
        (b"# \xe9\nsix\n", "requirements.txt: requirements.txt is not UTF-8 text (byte 2)"),
        (
            b"# coding: cp99999\nsix\n",
            "requirements.txt: requirements.txt names the encoding 'cp99999', which there is not",
        ),
        ("numpy=1.16\n", "requirements.txt line 1: 'numpy=1.16' cannot be read: "),
        (b"#" * (1024 * 1024 + 1), "requirements.txt: requirements.txt is larger than 1048576 bytes"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str | bytes, sentence: str) -> None:
    with pytest.raises(WorkError) as caught:
        requirements_of(text)
    assert caught.value.error_class is ErrorClass.INVALID
    assert caught.value.message.startswith(sentence)


@pytest.mark.parametrize(
    "content",
    [
        "# é\nsix\n".encode("utf-8-sig"),
        "six\n".encode("utf-16"),
        b"\xfe\xff" + "six\n".encode("utf-16-be"),
        "six\n".encode("utf-32"),
        b"# -*- coding: latin-1 -*-\n# \xe9\nsix\n",
        b"# coding: punycode\nsix\n",
        b"#!\n# coding=Windows-1252\nsix # \x80\n",
    ],
)
def test_a_file_is_decoded_as_by_pip(content: bytes) -> None:
    assert [line.text for line in requirements_of(content).lines] == ["six"]


@pytest.mark.parametrize(
    "line", ["numpy>=1.16.*", "pytz==2004d", "a[b] (>=1.0-x, <2)", "a>1.*; python_version > '3'", "six;", "a==1 ;"]
)
def test_what_some_version_of_pip_takes_is_left_to_pip(line: str) -> None:
    (found,) = requirements_of(line).lines
    assert (found.kind, found.text, found.name) == (RequirementKind.HOSTED, line, line[: len(found.name or "")])


@pytest.mark.parametrize("line", ["a==./b", "a>=1.* @ ./b", "a==1/2"])
def test_a_line_that_pip_could_take_for_a_path_is_not_a_version(line: str) -> None:
    try:
        found = requirements_of(line)
    except WorkError:
        return
    assert not found.shareable


def test_a_link_in_place_of_the_file_is_refused() -> None:
    with (
        open_source_tree(io.BytesIO(archive_of({}, links={"requirements.txt": "/etc/passwd"}))) as tree,
        pytest.raises(WorkError, match="not a regular file"),
    ):
        read_requirements(tree)


def test_included_files_take_part_with_their_own_lines() -> None:
    found = requirements_of(
        "-r deps/more.txt\n-c pins.txt\nsix\n", deps__more="-r ../last.txt\n\nfoo", last="bar", pins="baz==1"
    )
    assert [(line.text, line.constraint) for line in found.lines] == [
        ("bar", False),
        ("foo", False),
        ("baz==1", True),
        ("six", False),
    ]
    assert found.line_of_distribution("Foo") == "deps/more.txt line 3"
    assert found.line_of_distribution("unheard-of") is None
    assert set(found.files) == {"requirements.txt", "deps/more.txt", "last.txt", "pins.txt"}


def test_a_file_that_includes_itself_ends() -> None:
    assert [line.text for line in requirements_of("-r requirements.txt\nsix\n").lines] == ["six"]


def test_comments_and_blank_lines_do_not_make_requirements_different() -> None:
    bare = requirements_of("a==1\nb==2\n")
    assert requirements_of("# why\na==1   # because\n\n\nb==2").fingerprint() == bare.fingerprint()
    assert requirements_of("a==1\nb==3\n").fingerprint() != bare.fingerprint()


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_by_line(text: str) -> None:
    refusal, found = None, NO_REQUIREMENTS
    try:
        found = requirements_of(text.encode("utf-8", "surrogatepass"))
    except WorkError as error:
        refusal = error
    assert refusal is None or refusal.message.startswith("requirements.txt")
    assert all(1 <= line.number <= len(text.splitlines()) for line in found.lines)
