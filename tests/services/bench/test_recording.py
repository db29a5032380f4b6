"""Packets that are recorded once can be sent for ever."""

from __future__ import annotations

import pytest

from codec.errors import MissingReference
from services.bench.recording import Replay, record_packets, recorded_packets
from services.bench.settings import BenchLoadSettings
from services.errors import NotMeasurable
from services.loading import LoadedModel, find_network
from services.recording.limits import RecordingLimits
from services.recording.segment_writer import PacketToRecord, SegmentWriter
from stream.errors import SourceError
from stream.recording.segment import SegmentHead
from tests.services.clips import SIZE


@pytest.fixture(scope="module")
def network(weights):
    return LoadedModel("random", find_network(str(weights)))


def recorded(network, **settings):
    defaults = {"size": f"{SIZE[0]}x{SIZE[1]}", "frames": 3, "codec": "rle:bits=4,temporal=true"}
    return record_packets(BenchLoadSettings.load(defaults | settings), network)


@pytest.fixture(scope="module")
def packets(network, video):
    return recorded(network, source=str(video))


def test_a_replay_can_be_decoded_round_after_round(packets):
    replay, decoder = (
        Replay(packets.packets, packets.codec.packet_format(packets.layout)),
        packets.codec.decoder(packets.layout),
    )
    decoded = [decoder.decode(replay.take(sequence, 1000 + sequence)) for sequence in range(7)]
    assert [frame.header.keyframe for frame in decoded] == [True, False, False] * 2 + [True]
    assert [frame.header.sequence for frame in decoded] == list(range(7))
    assert [frame.header.captured_ns for frame in decoded] == list(range(1000, 1007))
    assert (decoded[0].tensors["4.m"] == decoded[3].tensors["4.m"]).all()


def test_a_keyframe_that_is_asked_for_comes_next(packets):
    replay, decoder = (
        Replay(packets.packets, packets.codec.packet_format(packets.layout)),
        packets.codec.decoder(packets.layout),
    )
    replay.take(0, 0)
    with pytest.raises(MissingReference):
        decoder.decode(replay.take(1, 0))
    replay.force_keyframe()
    assert decoder.decode(replay.take(2, 0)).header.keyframe


def test_frames_lie_as_far_apart_as_those_of_a_camera_of_that_rate(network, video):
    every_fifth = recorded(network, source=str(video), frames=60, fps=5)  # of 20 frames at 25 a second
    assert len(every_fifth.packets) == 4


def test_the_virtual_camera_can_be_recorded(network):
    assert len(recorded(network, source="demo", frames=1).packets) == 1


@pytest.mark.parametrize("source", ["0", "rtsp://camera/stream"])
def test_a_camera_is_refused_by_what_to_do(network, source):
    with pytest.raises(SourceError, match="--source: packets are recorded from a video"):
        recorded(network, source=source)


@pytest.fixture(scope="module")
def folder(network, packets, tmp_path_factory):
    """A recording of the same packets, as a camera writes it."""
    folder = tmp_path_factory.mktemp("recording")
    head = SegmentHead(packets.hello("door", "0" * 32))
    writer = SegmentWriter(folder, "door", RecordingLimits(2**24, 2**22, 60.0))
    writer.write(
        [PacketToRecord(head, packet, number, number == 0) for number, packet in enumerate(packets.packets)]
    )
    writer.close()
    return folder


def test_a_recording_takes_the_place_of_a_source(network, packets, folder):
    settings = BenchLoadSettings.load({"recording": folder, "frames": 2})
    taken = recorded_packets(settings, folder, network)
    assert taken.packets == packets.packets[:2]
    assert (taken.split, taken.canvas, taken.layout) == (packets.split, packets.canvas, packets.layout)
    assert (taken.codec, taken.frame_size) == (packets.codec, packets.frame_size)


def test_a_recording_of_another_network_is_refused(folder, other_weights):
    other = LoadedModel("other", find_network(str(other_weights)))
    with pytest.raises(NotMeasurable, match=r"--recording: .* is of random, and these weights differ"):
        recorded_packets(BenchLoadSettings.load({"recording": folder}), folder, other)


def test_a_hello_tells_what_was_recorded(packets):
    hello = packets.hello("load0", "0" * 32)
    assert hello.live
    assert (hello.weights, hello.canvas) == (packets.weights, SIZE)
    assert [tensor.name for tensor in hello.tensors] == [tensor.name for tensor in packets.layout]
