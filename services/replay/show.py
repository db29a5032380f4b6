"""`splitcast recording show`: what the files of a recording hold."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from codec.packet_file import MAX_FILE_PACKET_BYTES
from services.errors import Exit, words_of
from services.logs import to_json
from services.printable import printable
from services.recording.folder import segment_files
from services.recording.player import PlayedStream, open_file
from services.replay.settings import RecordingShowSettings
from services.units import KB
from stream.errors import NoRecording
from stream.recording.segment import Segment


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a file holds, as JSON has it."""

    file: str
    stream: str
    network: str
    weights: str
    split: str
    canvas: tuple[int, int]  # (H, W) in pixels
    codec: str
    began: float | None  # capture of the first packet, as Unix time by the camera's clock
    seconds: float  # from the first packet to the last
    packets: int
    keyframes: int
    bytes: int
    kb_per_packet: float
    ended: bool  # as it should; else it was cut, or is still being written
    unread_bytes: int  # behind the last whole record

    def lines(self) -> list[str]:
        """For people."""
        began = (
            f"{datetime.fromtimestamp(self.began, UTC):%Y-%m-%d %H:%M:%S} UTC" if self.began else "nothing"
        )
        height, width = self.canvas
        state = "ended" if self.ended else f"not ended, {self.unread_bytes} bytes are left out"
        return [
            printable(self.file),
            f"  {self.stream}, {printable(self.network)} split at {printable(self.split)}, {height}x{width}",
            f"  {printable(self.codec)}",
            f"  {began}, {self.seconds:.1f} s, {self.packets} packets, {self.keyframes} keyframes, "
            f"{self.kb_per_packet:.2f} kB a packet, {state}",
        ]


def run_recording_show(settings: RecordingShowSettings) -> Exit:
    """Print a summary of each file. Raises OSError, and NoRecording where there is none that can be played."""
    path, shown = settings.recording, 0
    paths = [file.path for file in segment_files(path)] if path.is_dir() else [path]
    for file in paths:
        try:
            summary = summarize(file)
        except (NoRecording, OSError) as error:
            if len(paths) == 1:
                if isinstance(error, OSError):
                    raise
                raise NoRecording(f"{file} cannot be played: {error}") from None
            told = printable(f"{file} cannot be played: {words_of(error)}")
            print(told, file=sys.stderr if settings.as_json else sys.stdout)
            continue
        print(to_json(asdict(summary)) if settings.as_json else "\n".join(summary.lines()))
        shown += 1
    if not shown:
        raise NoRecording(f"{path} holds no recording that can be played")
    return Exit.OK


def summarize(path: Path) -> FileSummary:
    """What the file holds; reads all of it. Raises OSError, NoRecording."""
    with open_file(path) as file:
        segment = Segment(file, os.fstat(file.fileno()).st_size)
        stream = PlayedStream.of(segment)
        most = min(stream.packet_format.max_packet_bytes, MAX_FILE_PACKET_BYTES)
        packets = keyframes = packet_bytes = first_ns = last_ns = 0
        for packet in segment.packets(segment.first_packet, most):
            first_ns = packet.captured_ns if not packets else first_ns
            last_ns = packet.captured_ns
            packets, keyframes = packets + 1, keyframes + packet.keyframe
            packet_bytes += len(packet.data)
    hello = segment.hello
    clock = hello.clock
    return FileSummary(
        str(path),
        hello.stream,
        hello.model,
        hello.weights,
        hello.split,
        hello.canvas,
        str(stream.codec),
        (first_ns - clock.monotonic_ns + clock.unix_ns) / 1e9 if packets else None,
        (last_ns - first_ns) / 1e9,
        packets,
        keyframes,
        segment.size,
        round(packet_bytes / max(packets, 1) / KB, 3),
        segment.ended,
        segment.size - segment.whole_bytes,
    )
