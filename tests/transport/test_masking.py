"""Masking of websocket payloads."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.transport.websocket.masking import SCRATCH, SMALL, mask_from, masked, unmasked


def plainly(data: bytes, mask: bytes) -> bytes:
    """RFC 6455 section 5.3, to the letter."""
    return bytes(octet ^ mask[i % 4] for i, octet in enumerate(data))


class MaskingTests(SynchronousTestCase):
    @settings(max_examples=60)
    @given(
        st.binary(min_size=4, max_size=4),
        st.binary(min_size=1, max_size=7),
        st.sampled_from([1, SMALL // 7, SMALL, 3 * SMALL]),
        st.lists(st.integers(0, 20000), max_size=3),
        st.integers(0, 14),
    )
    def test_as_the_standard_says(
        self, mask: bytes, pattern: bytes, times: int, cuts: list[int], start: int
    ) -> None:
        """Payloads of any size are masked in place, and unmasked in any pieces, as defined."""
        data = pattern * times
        expected = plainly(data, mask)
        self.assertEqual(masked(data, mask), expected)
        frame = bytearray(bytes(start) + data)
        mask_from(frame, start, mask)
        self.assertEqual(frame, bytes(start) + expected)
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [
            unmasked(memoryview(expected)[a:b], mask[a % 4 :] + mask[: a % 4])
            for a, b in zip(places, places[1:], strict=False)
        ]
        self.assertEqual(b"".join(pieces), data)

    def test_more_than_is_masked_at_once(self) -> None:
        """A piece larger than the working memory is unmasked, too."""
        data = bytes(range(251)) * (3 * SCRATCH // 251)
        frame = bytearray(data)
        mask_from(frame, 0, b"abcd")
        self.assertEqual(unmasked(memoryview(frame), b"abcd"), data)
