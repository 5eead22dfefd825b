"""The frames of a spool's segment: what a kill leaves is a beginning, and is told from damage."""

from hypothesis import given
from hypothesis import strategies as st

from meterbook.client.frames import HEADER, MARK, OVERHEAD, frame, read_frame, scan

PAYLOADS = st.lists(st.binary(max_size=40) | st.just(MARK) | st.just(frame(b"within")), min_size=1, max_size=6)


def segment(payloads: list[bytes]) -> bytes:
    return HEADER + b"".join(map(frame, payloads))


@given(PAYLOADS)
def test_what_was_framed_is_read(payloads: list[bytes]) -> None:
    """Whatever it holds, also marks and frames."""
    found = scan(segment(payloads))
    assert [each.payload for each in found.frames] == payloads
    assert not found.is_damaged
    assert read_frame(frame(payloads[0])) == payloads[0]


@given(PAYLOADS, st.data())
def test_a_beginning_is_read_as_far_as_it_is_whole(payloads: list[bytes], chosen: st.DataObject) -> None:
    """Cut anywhere: whole frames before the cut, none after, and where to cut; nothing looks like damage but a frame in the torn one."""
    whole = segment(payloads)
    cut = chosen.draw(st.integers(len(HEADER), len(whole)))
    found = scan(whole[:cut])
    ends = [len(segment(payloads[:n])) for n in range(len(payloads) + 1)]
    sound = max(n for n, end in enumerate(ends) if end <= cut)
    assert [each.payload for each in found.frames] == payloads[:sound]
    assert found.end == ends[sound]
    assert not found.is_damaged or frame(b"within") in whole[ends[sound] : cut]


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=2, max_size=6), st.data())
def test_a_byte_that_changed_before_the_last_frame_is_damage(payloads: list[bytes], chosen: st.DataObject) -> None:
    """It is never taken for the end, after which everything would be cut off."""
    whole = bytearray(segment(payloads))
    place = chosen.draw(st.integers(len(HEADER), len(segment(payloads[:-1])) - 1))
    whole[place] ^= chosen.draw(st.integers(1, 255))
    found = scan(bytes(whole))
    assert found.is_damaged
    assert found.end <= place


def test_a_tail_of_zeros_is_torn() -> None:
    """As some file systems leave it when the power fails."""
    found = scan(segment([b"a"]) + bytes(100))
    assert (len(found.frames), found.end, found.is_damaged) == (1, len(HEADER) + OVERHEAD + 1, False)
