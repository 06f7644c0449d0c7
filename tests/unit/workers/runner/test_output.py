from hypothesis import given
from hypothesis import strategies as st

from workers.runner.output import READY_MARKER, HeadBuffer, MarkerFilter, TailBuffer

PIECES = st.lists(st.sampled_from([b"PIPE_", b"INIT", b"PIPE_INIT_COMPLET", b"E", b"x", b"\n", READY_MARKER]))


def fed(pieces: list[bytes]) -> tuple[MarkerFilter, bytes]:
    marker = MarkerFilter()
    return marker, b"".join([marker.feed(piece) for piece in pieces]) + marker.flush()


@given(PIECES)
def test_the_first_marker_and_its_line_end_are_taken_out_however_the_stream_is_cut(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    before, found, after = stream.partition(READY_MARKER)
    marker, passed = fed(pieces)
    assert marker.seen == bool(found)
    assert passed == before + (after[1:] if found and after.startswith(b"\n") else after)


def test_what_cannot_be_the_marker_is_passed_on_at_once() -> None:
    marker = MarkerFilter()
    assert marker.feed(b"hello PIPE") == b"hello "
    assert marker.feed(b"line\n") == b"PIPEline\n"


def test_the_head_keeps_the_beginning() -> None:
    head = HeadBuffer(limit=4)
    head.add(b"abc")
    assert head.text() == "abc"
    head.add(b"de")
    head.add(b"f")
    assert head.text() == "abcd\n[cut off after 4 bytes]\n"


def test_the_tail_keeps_the_end() -> None:
    tail = TailBuffer(limit=4)
    tail.add(b"abc")
    tail.add(b"def")
    assert tail.text() == "cdef"
    tail.clear()
    assert tail.text() == ""
