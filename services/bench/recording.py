"""Packets as a camera sends them, recorded once: source → letterbox → head → encoder."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from codec.layout import Layout
from codec.packet import PacketFormat, PacketHeader, Stamp
from codec.packet_stream import restamped
from codec.spec import Codec, parse_codec
from services.bench.settings import BenchLoadSettings
from services.clock import clock_now
from services.errors import NotMeasurable
from services.loading import LoadedModel
from services.metrics import VERSION
from services.profiles import resolve
from services.recording.player import Player, recording_paths
from stream.canvas import canvas_for, parse_size
from stream.errors import NoRecording, SourceError
from stream.frame import Frame
from stream.letterbox import Letterbox
from stream.session.camera import tensor_shapes
from stream.session.messages import REJECT_REASONS, Hello
from stream.sources.base import CaptureOptions
from stream.sources.recorded import Recording, open_recording
from stream.sources.virtual import VirtualRecording, is_virtual
from stream.sources.virtual_camera import VirtualCamera


@dataclass(frozen=True, slots=True, eq=False)
class RecordedPackets:
    """Consecutive packets of one encoder, the first a keyframe, so that they may be sent again from there."""

    network: str  # the name that people know it by
    weights: str  # SHA-256
    split: str
    canvas: tuple[int, int]  # (H, W) in pixels
    layout: Layout  # of the tensors that cross
    codec: Codec
    frame_size: tuple[int, int]  # (H, W) of the first picture
    packets: tuple[bytes, ...]

    def hello(self, stream: str, session: str) -> Hello:
        """What a live camera says that sends these packets; say it now."""
        return Hello(
            stream=stream,
            model=self.network,
            weights=self.weights,
            split=self.split,
            canvas=self.canvas,
            tensors=tensor_shapes(self.layout),
            codec=str(self.codec),
            clock=clock_now(),
            software=f"splitcast/{VERSION}",
            reject_reasons=REJECT_REASONS,
            session=session,
            live=True,
        )


class Replay:
    """One camera's turn through recorded packets."""

    def __init__(self, packets: tuple[bytes, ...], packet_format: PacketFormat) -> None:
        self._packets, self._format = packets, packet_format
        self._next = 0
        self._captured_ns = 0  # of the packet before

    def take(self, sequence: int, captured_ns: int) -> bytes:
        """The next packet, with that number and time. What is not taken now comes next time: no difference is lost."""
        elapsed_ns, self._captured_ns = captured_ns - self._captured_ns, captured_ns
        packet = restamped(self._packets[self._next], self._format, sequence, captured_ns, elapsed_ns)
        self._next = (self._next + 1) % len(self._packets)
        return packet

    def force_keyframe(self) -> None:
        """Go back to the first packet."""
        self._next = 0


def record_packets(settings: BenchLoadSettings, network: LoadedModel) -> RecordedPackets:
    """As many packets as the settings say, of frames that lie apart as those of a camera with that rate.

    Raises SourceError, UnknownSplitPoint, InvalidSize, BadCodecSpec.
    """
    with closing(_open(settings.source)) as recording:
        step = max(1, round(recording.fps / settings.fps))
        first = _first_frame(recording, settings.source)
        frame: Frame | None = first
        canvas = canvas_for(parse_size(settings.size), first.height, first.width, network.model.stride)
        head = network.model.head(settings.split, canvas)
        codec = resolve(parse_codec(settings.codec), network.model.weights_hash, settings.split)
        encoder = codec.encoder(head.layout)
        packets: list[bytes] = []
        while frame is not None and len(packets) < settings.frames:
            tensors = head(Letterbox((frame.height, frame.width), canvas).apply(frame.image))
            packets.append(encoder.encode(tensors, Stamp(len(packets), 0, frame.height, frame.width)).data)
            if step > 1:
                recording.skip(step - 1)
            frame = _next_frame(recording)
    return RecordedPackets(
        network.name,
        network.model.weights_hash,
        settings.split,
        canvas,
        head.layout,
        codec,
        (first.height, first.width),
        tuple(packets),
    )


def recorded_packets(settings: BenchLoadSettings, path: Path, network: LoadedModel) -> RecordedPackets:
    """Packets of a recording, at most as many as the settings say, up to where the stream changes.

    Raises OSError, NoRecording, SettingsError, NotMeasurable where they are of another network.
    """
    player = Player(recording_paths(path, None))
    first = player.next()
    if first is None:
        raise NoRecording(f"{path} was cut before its first packet")
    packets, packet = [first.data], player.next()
    while packet and packet.stream is first.stream and len(packets) < settings.frames:
        packets.append(packet.data)
        packet = player.next()
    stream, hello = first.stream, first.stream.hello
    if hello.weights != network.model.weights_hash:
        raise NotMeasurable(
            f"--recording: {path} is of {hello.model}, and these weights differ: name them by --model"
        )
    header = PacketHeader.parse(first.data)
    return RecordedPackets(
        network.name,
        hello.weights,
        hello.split,
        hello.canvas,
        stream.packet_format.layout,
        stream.codec,
        (header.frame_height, header.frame_width),
        tuple(packets),
    )


def _open(source: str) -> Recording:
    if is_virtual(source):
        return VirtualRecording(VirtualCamera.parse(source))
    if source.isdecimal() or "://" in source:
        raise SourceError(
            "--source: packets are recorded from a video, a folder of images or demo, not from a camera"
        )
    return open_recording(Path(source), CaptureOptions())


def _first_frame(recording: Recording, name: str) -> Frame:
    frame = _next_frame(recording)
    if frame is None:
        raise SourceError(f"{name} holds no picture that can be read")
    return frame


def _next_frame(recording: Recording) -> Frame | None:
    """The next frame, past what cannot be read; None at the end."""
    while True:
        match recording.read():
            case Frame() as frame:
                return frame
            case None:
                return None
