"""What recording costs a camera: CPU of writing a packet beside that of coding it, and bytes around it.

python -m tests.benchmarks.recording [--model yolov5n] [--frames 200] [--folder DIR]

Both are measured in turns, frame by frame, so that a busy machine slows both. The folder should be on the disk in
question: writes end in the page cache, and are flushed every five seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from codec.packet import Stamp
from codec.spec import parse_codec
from services.bench.machine import this_machine
from services.loading import find_network
from services.profiles import resolve
from services.recording.folder import segment_files
from services.recording.limits import RecordingLimits
from services.recording.segment_writer import PacketToRecord, SegmentWriter
from stream.letterbox import Letterbox
from stream.recording.records import PACKET_RECORD_BYTES
from stream.recording.segment import SegmentHead
from stream.session.camera import tensor_shapes
from stream.session.messages import Clock, Hello
from stream.sources.virtual import VirtualRecording
from stream.sources.virtual_camera import VirtualCamera

CANVAS, SPLIT = (384, 640), "4.m"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolov5n")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    network = find_network(options.model)
    head = network.head(SPLIT, CANVAS)
    codec = resolve(parse_codec("feature:quality=6"), network.weights_hash, SPLIT)
    encoder = codec.encoder(head.layout)
    clock = Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns())
    hello = Hello(
        stream="bench",
        model=options.model,
        weights=network.weights_hash,
        split=SPLIT,
        canvas=CANVAS,
        tensors=tensor_shapes(head.layout),
        codec=str(codec),
        clock=clock,
    )
    session, source = SegmentHead(hello, codec.profile), VirtualRecording(VirtualCamera.parse("demo"))
    encode_ms, write_ms, wall_ms, sizes = [], [], [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        writer = SegmentWriter(Path(folder), "bench", RecordingLimits(2**30, 2**26, 600.0))
        for number in range(options.frames):
            frame = source.read()
            tensors = head(Letterbox((frame.height, frame.width), CANVAS).apply(frame.image))
            began_ns = time.thread_time_ns()
            encoded = encoder.encode(tensors, Stamp(number, frame.captured_ns, frame.height, frame.width))
            coded_ns, wall_ns = time.thread_time_ns(), time.monotonic_ns()
            writer.write([PacketToRecord(session, encoded.data, frame.captured_ns, encoded.keyframe)])
            write_ms.append((time.thread_time_ns() - coded_ns) / 1e6)
            wall_ms.append((time.monotonic_ns() - wall_ns) / 1e6)
            encode_ms.append((coded_ns - began_ns) / 1e6)
            sizes.append(len(encoded.data))
        writer.close()
        file_bytes = sum(file.size for file in segment_files(Path(folder)))
    kb = sum(sizes) / len(sizes) / 1000
    print(this_machine())
    print(f"{options.frames} packets of {kb:.2f} kB; around each {PACKET_RECORD_BYTES} bytes")
    print(
        f"a file's head {len(session.pack())} bytes; all in all {100 * (file_bytes / sum(sizes) - 1):.2f} % more"
    )
    print(f"encode {median(encode_ms):.3f} ms, write {median(write_ms):.4f} ms of CPU (median), "
          f"{100 * sum(write_ms) / sum(encode_ms):.2f} % of encoding; longest write {max(wall_ms):.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
