"""Files of features: coded, decoded, reported on, and refused whole."""

from __future__ import annotations

import numpy as np
import pytest

from codec.errors import (
    BitstreamError,
    CorruptPacket,
    LayoutMismatch,
    MissingReference,
    NonFiniteTensor,
    TruncatedPacket,
    UnsupportedPacket,
)
from codec.layout import TensorSpec
from codec.packet import Stamp, is_keyframe
from codec.packet_file import FILE_START, framed, read_packets
from codec.spec import parse_codec
from services.commands.transcode import decode_file, encode_file
from services.errors import TranscodeError
from tests.codec import reference_rle as reference
from tests.codec.samples import LAYOUT, features, tables, video

RAW = parse_codec("raw")
RLE = parse_codec("rle:bits=3")
TEMPORAL = parse_codec("rle:bits=3,temporal=true")
PICTURES = (TensorSpec("4.m", (4, 6, 8)), TensorSpec("file", (2, 3, 4)))


def save(path, frames):
    np.savez(
        path, **{name: np.stack([frame[name] for frame in frames]) for name in frames[0] if name != "file"}
    )
    if "file" in frames[0]:
        # A name that np.savez takes for its own argument.
        import zipfile

        with zipfile.ZipFile(path, "a") as archive, archive.open("file.npy", "w") as member:
            np.lib.format.write_array(member, np.stack([frame["file"] for frame in frames]))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.npz"
    save(path, video(5, 4, PICTURES))
    return path


@pytest.mark.parametrize("codec", [RLE, TEMPORAL, RAW])
def test_several_frames_are_several_packets_and_come_back(codec, source, tmp_path):
    coded, decoded = tmp_path / "out.spc", tmp_path / "out.npz"
    report = encode_file(source, coded, codec)
    assert decode_file(coded, decoded) == report
    assert (report.packets, report.raw_bytes) == (4, 4 * 4 * (4 * 6 * 8 + 2 * 3 * 4))
    assert report.coded_bytes == sum(map(len, read_packets(coded))) < coded.stat().st_size
    with np.load(decoded, allow_pickle=False) as arrays:
        for name in ("4.m", "file"):
            frames = [frame[name] for frame in video(5, 4, PICTURES)]
            if codec is not RAW:
                parts = [reference.quantize([float(v) for v in frame.ravel()], 3) for frame in frames]
                frames = [
                    np.array(reference.dequantize(part, 3), np.float32).reshape(frame.shape)
                    for part, frame in zip(parts, frames, strict=True)
                ]
            assert np.array_equal(arrays[name], np.stack(frames))


def test_packets_are_numbered_from_zero(source, tmp_path):
    encode_file(source, tmp_path / "out.spc", TEMPORAL)
    decoder = TEMPORAL.decoder(PICTURES)
    headers = [decoder.decode(packet).header for packet in read_packets(tmp_path / "out.spc")]
    assert [header.sequence for header in headers] == [0, 1, 2, 3]
    assert {(header.captured_ns, header.frame_height, header.frame_width) for header in headers} == {
        (0, 0, 0)
    }
    assert [header.keyframe for header in headers][:2] == [True, False]


def test_one_frame_of_few_axes_comes_back_without_another(tmp_path):
    np.savez(tmp_path / "in.npz", **features(1))
    report = encode_file(tmp_path / "in.npz", tmp_path / "out.spc", RAW)
    assert (report.packets, report.keyframes) == (1, 1)
    decode_file(tmp_path / "out.spc", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        for name, tensor in features(1).items():
            assert np.array_equal(arrays[name], tensor)


def test_report_can_be_read(source, tmp_path):
    report = encode_file(source, tmp_path / "out.spc", RLE)
    assert report.ratio == report.raw_bytes / report.coded_bytes
    assert report.bits_per_coefficient == pytest.approx(32 / report.ratio)
    assert str(report).startswith(f"4 packets (4 keyframes), {report.raw_bytes} bytes as float32, ")
    assert str(report).endswith(f"bits per coefficient, ratio {report.ratio:.2f}")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds no arrays"),
        ({"a": np.zeros((1, 2, 3))}, "'a' is float64; features are float32"),
        ({"a": np.float32(1)}, "1 to 3 axes"),
        ({"a": np.zeros((1,) * 5, np.float32)}, "1 to 3 axes"),
        ({"a": np.zeros((2, 1, 1, 1), np.float32), "b": np.zeros((3, 1, 1, 1), np.float32)}, "as many"),
        ({"a": np.zeros((2, 1, 1, 1), np.float32), "b": np.zeros((2, 1, 1), np.float32)}, "as many"),
        ({"a": np.zeros((0, 1, 1, 1), np.float32)}, "as many"),
        ({"a": np.array([{}], dtype=object)}, "no .npz file of arrays"),
    ],
)
def test_encode_refuses_other_arrays(arrays, message, tmp_path):
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(TranscodeError, match=message):
        encode_file(tmp_path / "in.npz", tmp_path / "out.spc", RLE)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 and no more", b"text", b"\x93NUMPY"])
def test_encode_refuses_other_files(content, tmp_path):
    (tmp_path / "in.npz").write_bytes(content)
    with pytest.raises(TranscodeError, match=r"no \.npz file"):
        encode_file(tmp_path / "in.npz", tmp_path / "out.spc", RLE)


def test_encode_refuses_a_bare_array(tmp_path):
    with (tmp_path / "in.npz").open("wb") as file:
        np.save(file, np.zeros(3, np.float32))
    with pytest.raises(TranscodeError, match=r"no \.npz file"):
        encode_file(tmp_path / "in.npz", tmp_path / "out.spc", RLE)


def test_a_failure_leaves_the_target_as_it_was(tmp_path):
    frames = video(5, 3, PICTURES[:1])
    frames[2]["4.m"][0, 0, 0] = np.nan
    save(tmp_path / "in.npz", frames)
    target = tmp_path / "out.spc"
    target.write_bytes(b"before")
    with pytest.raises(NonFiniteTensor):
        encode_file(tmp_path / "in.npz", target, RLE)
    assert target.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"in.npz", "out.spc"}


class TestDecodeRefuses:
    @pytest.fixture
    def coded(self, source, tmp_path):
        path = tmp_path / "out.spc"
        encode_file(source, path, TEMPORAL)
        return path

    def refuses(self, coded, error, message, **limits):
        target = coded.with_name("decoded.npz")
        with pytest.raises(error, match=message):
            decode_file(coded, target, **limits)
        assert not target.exists()

    def test_an_empty_file(self, coded):
        coded.write_bytes(b"")
        self.refuses(coded, TranscodeError, "is empty")

    def test_a_file_of_version_1(self, coded):
        coded.write_bytes(b"SPLC\1" + coded.read_bytes()[5:])
        self.refuses(coded, UnsupportedPacket, "version 1, this decoder takes 2")

    def test_a_file_that_begins_with_a_difference(self, coded):
        differences = [packet for packet in read_packets(coded) if not is_keyframe(packet)]
        coded.write_bytes(FILE_START + framed(differences[0]))
        self.refuses(coded, MissingReference, "holds no frame")

    def test_a_file_that_ends_in_a_packet(self, coded):
        coded.write_bytes(coded.read_bytes()[:-1])
        self.refuses(coded, TruncatedPacket, "needs at least")

    def test_a_flipped_bit(self, coded):
        data = bytearray(coded.read_bytes())
        data[-10] ^= 1
        coded.write_bytes(data)
        self.refuses(coded, CorruptPacket, "checksum")

    def test_a_packet_of_another_layout(self, coded):
        other = RLE.encoder(LAYOUT[:1]).encode({"4.m": features(1)["4.m"]}, Stamp(4, 0)).data
        coded.write_bytes(coded.read_bytes() + framed(other))
        self.refuses(coded, LayoutMismatch, "4.m")

    def test_more_than_the_limit(self, coded):
        raw_bytes = 4 * 4 * (4 * 6 * 8 + 2 * 3 * 4)
        decode_file(coded, coded.with_name("enough.npz"), max_decoded_bytes=raw_bytes)
        self.refuses(coded, TranscodeError, "more than", max_decoded_bytes=raw_bytes - 1)

    def test_a_table_that_claims_more_than_its_sections_hold(self, coded):
        """A layout from a packet is not agreed on: it must not make the decoder allocate."""
        bomb = reference.Table("bomb", (65535, 4096), [])
        section = reference.section(reference.quantize([0.0], 3), [0], 3)
        packet = reference.packet([bomb], [section], 1, b"\x03", (0, 0, 0, 0))
        coded.write_bytes(FILE_START + framed(packet))
        self.refuses(coded, BitstreamError, "bytes, not", max_decoded_bytes=2**40)


def test_reference_packets_decode_from_a_file(tmp_path):
    frame = features(3)
    packet = reference.rle_packet(tables(frame), 5, (9, 8, 7, 6))
    (tmp_path / "in.spc").write_bytes(b"SPLC\2" + reference.varint(len(packet)) + packet)
    assert decode_file(tmp_path / "in.spc", tmp_path / "out.npz").packets == 1
