"""Codes arrays in a file and back: `splitcast encode IN.npz OUT.spc`, `splitcast decode IN.spc OUT.npz`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.interface import Decoder
from codec.layout import FloatArray, Layout, TensorSpec, raw_bytes
from codec.packet import PacketHeader, Stamp
from codec.packet_file import FILE_START, framed, read_packets
from codec.spec import Codec, codec_of_packet, parse_codec
from services.commands.settings import DecodeSettings, EncodeSettings
from services.errors import TranscodeError
from services.profiles import without_network
from stream.atomic_file import replacing

MAX_DECODED_BYTES = 2**31

Frames: TypeAlias = list[dict[str, FloatArray]]


@dataclass(frozen=True, slots=True)
class TranscodeReport:
    """Sizes of one file's features."""

    packets: int
    keyframes: int
    raw_bytes: int  # of all coefficients as float32
    coded_bytes: int  # of all packets, headers and checksums included

    @property
    def bits_per_coefficient(self) -> float:
        """Coded bits, everything included, over the number of coefficients."""
        return 8 * self.coded_bytes / (self.raw_bytes / 4)

    @property
    def ratio(self) -> float:
        """Raw bytes over coded bytes."""
        return self.raw_bytes / self.coded_bytes

    def __str__(self) -> str:
        return (
            f"{self.packets} packets ({self.keyframes} keyframes), "
            f"{self.raw_bytes} bytes as float32, {self.coded_bytes} coded: "
            f"{self.bits_per_coefficient:.3f} bits per coefficient, ratio {self.ratio:.2f}"
        )


def run_encode(settings: EncodeSettings) -> None:
    """Code a file and print the sizes. Raises what `encode_file` does."""
    codec = without_network(parse_codec(settings.codec))
    print(encode_file(settings.input, settings.output, codec))


def run_decode(settings: DecodeSettings) -> None:
    """Decode a file and print the sizes. Raises what `decode_file` does."""
    print(decode_file(settings.input, settings.output))


def encode_file(source: Path, target: Path, codec: Codec) -> TranscodeReport:
    """Code the arrays of an .npz file, float32 and named by layer, into a file of packets.

    Arrays of 1 to 3 axes make one packet. Arrays of 4 axes are frames along the first, which all share, and
    make a packet each. The packets are numbered from 0 and say nothing of time or picture.
    `target` appears whole or not at all.
    Raises TranscodeError if the file is something else, CodecError if its arrays cannot be coded, OSError.
    """
    frames = _frames(_read_arrays(source))
    layout = tuple(TensorSpec(name, array.shape) for name, array in frames[0].items())
    encoder = codec.encoder(layout)
    keyframes = coded_bytes = 0
    with replacing(target) as partial, partial.open("wb") as file:
        file.write(FILE_START)
        for sequence, tensors in enumerate(frames):
            packet = encoder.encode(tensors, Stamp(sequence, captured_ns=0))
            file.write(framed(packet.data))
            keyframes += packet.keyframe
            coded_bytes += len(packet.data)
    return TranscodeReport(len(frames), keyframes, len(frames) * raw_bytes(layout), coded_bytes)


def decode_file(source: Path, target: Path, max_decoded_bytes: int = MAX_DECODED_BYTES) -> TranscodeReport:
    """Decode a file of packets into an .npz file of float32 arrays named by layer.

    One packet gives arrays as they were coded; several give them stacked on a new first axis. There is no
    handshake: the first packet's header says codec and layout for all. It cannot make this allocate beyond
    the coefficients that its sections have room for (features, which may have none: beyond the 2**24 samples of
    the codec's limit), nor beyond `max_decoded_bytes` for the whole file.
    `target` appears whole or not at all.
    Raises TranscodeError if there is no packet or too much in them, BitstreamError, OSError.
    """
    decoder: Decoder | None = None
    layout: Layout = ()
    frames: Frames = []
    keyframes = coded_bytes = 0
    for packet in read_packets(source):
        if decoder is None:
            header = PacketHeader.parse(packet)
            layout = header.layout
            decoder = codec_of_packet(header).decoder(layout)
        if (len(frames) + 1) * raw_bytes(layout) > max_decoded_bytes:
            raise TranscodeError(
                f"{source} decodes to more than {max_decoded_bytes} bytes; split it into parts"
            )
        frame = decoder.decode(packet)
        frames.append(frame.tensors)
        keyframes += frame.header.keyframe
        coded_bytes += len(packet)
    if not frames:
        raise TranscodeError(f"{source} is empty; it should hold packets")
    with replacing(target) as partial, partial.open("wb") as file:
        _write_arrays(file, layout, frames)
    return TranscodeReport(len(frames), keyframes, len(frames) * raw_bytes(layout), coded_bytes)


def _read_arrays(source: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here: of a path numpy leaves the file open where it is no zip file.
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (AttributeError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        # numpy gives a bare array for .npy, which is no context manager, and ValueError for a pickle
        raise TranscodeError(f"{source} is no .npz file of arrays ({error})") from None
    if not arrays:
        raise TranscodeError(f"{source} holds no arrays; name one for each layer")
    return arrays


def _frames(arrays: Mapping[str, NDArray[Any]]) -> Frames:
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise TranscodeError(f"array {name!r} is {array.dtype}; features are float32")
    if all(1 <= array.ndim <= 3 for array in arrays.values()):
        return [dict(arrays)]
    counts = {array.shape[0] for array in arrays.values() if array.ndim == 4}
    if all(array.ndim == 4 for array in arrays.values()) and len(counts) == 1 and counts != {0}:
        return [{name: array[index] for name, array in arrays.items()} for index in range(counts.pop())]
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    raise TranscodeError(
        f"arrays should all have 1 to 3 axes, or 4 with frames along the first, as many for each: {shapes}"
    )


def _write_arrays(file: BinaryIO, layout: Layout, frames: Frames) -> None:
    # Not np.savez: it takes names as keyword arguments, and a layer may be called `file`.
    with zipfile.ZipFile(file, "w") as archive:
        for spec in layout:
            stack = np.stack([tensors[spec.name] for tensors in frames])
            with archive.open(f"{spec.name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, stack if len(frames) > 1 else stack[0], allow_pickle=False)
