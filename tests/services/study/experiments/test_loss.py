"""Transmission loss: what is filled in, what is refused, and where datagrams begin."""

from __future__ import annotations

import numpy as np
import pytest

from codec.layout import TensorSpec
from codec.rle.codec import Rle
from codec.spec import Codec
from services.study.experiments.loss import BITS, DatagramLink, PacketLink, PartLink, datagram_starts, loss
from services.study.record import RANDOM
from tests.codec import reference_rle
from tests.services.study.records import StudyFactory, record

LAYOUT = (TensorSpec("a", (4, 30, 40)),)


def _frames(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    still = rng.normal(size=(4, 30, 40))
    return [{"a": (still + 0.01 * rng.normal(size=still.shape)).astype(np.float32)} for _ in range(count)]


class _Chosen:
    """A generator that loses the packets of these numbers."""

    def __init__(self, *lost: int) -> None:
        self._lost, self._number = lost, -1

    def random(self) -> float:
        self._number += 1
        return 0.0 if self._number in self._lost else 1.0


def _shown(codec: Codec, *lost: int) -> tuple[list[int], list[int]]:
    """Which frame the detector goes on with for each, -1 for none yet, and the bytes that were sent."""
    link = PacketLink(codec, 0.5, _Chosen(*lost))  # type: ignore[arg-type]
    whole = PacketLink(Rle(BITS), 0.0, np.random.default_rng(0))
    shown, decoded, sent = [], [np.zeros((4, 30, 40), np.float32)], []
    for frame in _frames(8):
        tensors, size = link.send(frame, LAYOUT)
        decoded.append(whole.send(frame, LAYOUT)[0]["a"])
        errors = [float(np.abs(tensors["a"] - one).max()) for one in decoded]
        shown.append(int(np.argmin(errors)) - 1)
        sent.append(size)
    return shown, sent


def test_frames_by_themselves_lose_only_what_is_lost() -> None:
    assert _shown(Rle(BITS), 0, 3)[0] == [-1, 1, 2, 2, 4, 5, 6, 7]


def test_differences_wait_for_the_keyframe_that_is_asked_for() -> None:
    shown, sent = _shown(Rle(BITS, temporal=True), 2)
    assert shown == [0, 1, 1, 1, 4, 5, 6, 7], "frame 3 is refused, frame 4 is the keyframe"
    assert sent[4] > 1.5 * sent[3], "which is paid for"


def test_a_lost_keyframe_is_asked_for_again() -> None:
    assert _shown(Rle(BITS, temporal=True), 2, 4)[0] == [0, 1, 1, 1, 1, 1, 6, 7]


def test_rows_and_channels_are_filled_from_the_frame_before() -> None:
    frames = _frames(2)
    for unit, axis in (("row", 1), ("channel", 0)):
        link = PartLink(Rle(8), unit, 0.4, np.random.default_rng(3))
        first, _ = link.send(frames[0], LAYOUT)
        others = tuple(one for one in range(3) if one != axis)
        gone = np.abs(first["a"]).max(axis=others) == 0
        assert 0 < gone.sum() < gone.size
        second, _ = link.send(frames[1], LAYOUT)
        new = np.abs(second["a"] - frames[1]["a"]).max(axis=others) < 0.02
        old = np.abs(second["a"] - first["a"]).max(axis=others) == 0
        assert (new | old).all(), "each is this frame's or the frame before's"
        assert new.any()
        assert old.any()


def test_datagrams_begin_where_codewords_do() -> None:
    rng = np.random.default_rng(1)
    levels = np.where(rng.random(12_000) < 0.6, 0, rng.integers(1, 16, 12_000)).astype(np.uint8)
    levels[3000:3100] = 0
    words = reference_rle.codewords(levels.tolist(), BITS)
    lengths = [int(word[1:], 2) + 1 if word[0] == "1" else 1 for word in words]
    begins = np.cumsum([0, *lengths[:-1]])
    per_datagram = (1400 - 4) * 8 // 5
    assert datagram_starts(levels) == begins[::per_datagram].tolist()
    assert len(datagram_starts(levels)) > 2


def test_lost_datagrams_are_filled_in_and_their_places_counted() -> None:
    frames = _frames(2)
    whole, size = DatagramLink(0.0, np.random.default_rng(0)).send(frames[0], LAYOUT)
    packet = Rle(BITS).encoder(LAYOUT)
    from codec.packet import Stamp

    data = packet.encode(frames[0], Stamp(0, 0, 1, 1)).data
    np.testing.assert_array_equal(whole["a"], Rle(BITS).decoder(LAYOUT).decode(data).tensors["a"])
    assert size == len(data) + 4 * -(-(len(data) - 100) // 1400)
    lossy = DatagramLink(1.0, np.random.default_rng(0))
    nothing, _ = lossy.send(frames[0], LAYOUT)
    assert not nothing["a"].any()


def test_measures_once_and_refuses_random_weights(make_study: StudyFactory) -> None:
    study = make_study(quick=True)
    loss.measure(study)
    before = study.book.path.read_text()
    assert before.count("\n") == 3 * (3 + 1 + 2 + 2)
    loss.measure(make_study(quick=True))
    assert study.book.path.read_text() == before
    again = make_study("other.jsonl", quick=True)
    loss.measure(again)
    assert [one.values for one in again.book] == [one.values for one in study.book], (
        "the same seed, the same losses"
    )
    assert loss.present(list(study.book)).tables[0].rows
    random = make_study("random.jsonl", weights=RANDOM)
    loss.measure(random)
    assert not list(random.book)
    assert random.refusals


@pytest.mark.parametrize(
    ("rows", "bearable"), [(0.98, "packets of rle, rows of rle"), (0.5, "packets of rle")]
)
def test_the_verdict_names_what_can_be_borne(rows: float, bearable: str) -> None:
    def one(unit: str, share: float, score: float) -> object:
        values = {"scores": {"agreement": score}, "bytes": 1.0, "frames": 60}
        return record("loss", {"unit": unit, "codec": "rle", "share": share}, values)

    records = [one("packet", 0.0, 1.0), one("packet", 0.1, 0.99), one("row", 0.0, 1.0), one("row", 0.1, rows)]
    (claim,) = loss.present(records).claims  # type: ignore[arg-type]
    assert claim.verdict.endswith(f"are lost for {bearable}.")
