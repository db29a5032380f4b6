"""Golden packets: features.npz coded by every codec, and what the packets decode to.

    python -m tests.vectors.make

writes them again. features.npz is the input, four frames along the first axis, and is not made again. Do
this only when the format gets a new version: the packets are what cameras out there send.

Packets of the feature codec are only decoded, since its encoder may choose otherwise tomorrow; they come from
the moving frames below. Their arrays are the decoded tensors, and as `planes 0`, `planes 1`, ... the integers that
both ends hold of each group, which are exact.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codec.feature.codec import Feature
from codec.feature.profile import Profile, grouped
from codec.layout import FloatArray, Layout, TensorSpec
from codec.packet import Stamp
from codec.packet_file import FILE_START, framed
from codec.spec import parse_codec
from tests import recordings
from tests.codec.calibrated import make_profile

VECTORS = Path(__file__).parent
CODECS = {
    "raw": "raw",
    **{f"rle-{bits}": f"rle:bits={bits}" for bits in range(2, 9)},
    "rle-4-temporal": "rle:bits=4,temporal=true,keyframe_interval=3",
}


FEATURE = ("feature", "feature-uncalibrated")
FEATURE_LAYOUT = (  # two groups, of padded planes and of none
    TensorSpec("4.m", (3, 9, 14)),
    TensorSpec("9", (5,)),
    TensorSpec("4.cv2", (2, 9, 14)),
)


def feature_codec(name: str) -> Feature:
    """The codec of `feature.packets` or `feature-uncalibrated.packets`."""
    if name == "feature-uncalibrated":
        return Feature(quality=7, keyframe_interval=5)
    profile = Profile.parse((VECTORS / "feature.profile").read_bytes())
    return Feature(quality=7, keyframe_interval=5, profile=profile)


def moving_frames() -> list[dict[str, FloatArray]]:
    """A picture that moves, stands still, is there again after a keyframe, and has one value far out."""
    rng = np.random.default_rng(3)
    wide = {spec.name: rng.normal(size=(*spec.shape[:-1], spec.shape[-1] + 8)) for spec in FEATURE_LAYOUT}
    frames = []
    for shift in (0, 1, 3, 3, 3, 4, 4, 5):
        frame = {}
        for spec in FEATURE_LAYOUT:
            smooth = wide[spec.name] + np.roll(wide[spec.name], 1, -1)
            frame[spec.name] = smooth[..., shift : shift + spec.shape[-1]].astype(np.float32)
        frames.append(frame)
    frames[1]["4.cv2"][1, 4, 5] = 400
    return frames


def feature_packets(name: str) -> list[bytes]:
    """One packet a frame, the sequence number going round."""
    encoder = feature_codec(name).encoder(FEATURE_LAYOUT)
    return [
        encoder.encode(frame, Stamp((2**32 - 2 + i) % 2**32, 10**12 + 40_000_000 * i, 480, 640)).data
        for i, frame in enumerate(moving_frames())
    ]


def decode_feature(name: str, coded: list[bytes]) -> dict[str, np.ndarray]:
    """Tensors and reference planes of the packets, the frames along the first axis."""
    decoder = feature_codec(name).decoder(FEATURE_LAYOUT)
    arrays: dict[str, list[np.ndarray]] = {}
    for packet in coded:
        tensors = decoder.decode(packet).tensors
        planes = {f"planes {i}": group.planes.copy() for i, group in enumerate(decoder.groups)}
        for key, array in (tensors | planes).items():
            arrays.setdefault(key, []).append(array)
    assert len(decoder.groups) == len(grouped(FEATURE_LAYOUT))
    return {key: np.stack(frames) for key, frames in arrays.items()}


def features() -> list[dict[str, FloatArray]]:
    """The frames of features.npz, their arrays by layer."""
    with np.load(VECTORS / "features.npz", allow_pickle=False) as arrays:
        return [{name: arrays[name][index] for name in arrays} for index in range(4)]


def layout() -> Layout:
    """The layout of every packet."""
    return tuple(TensorSpec(name, tensor.shape) for name, tensor in features()[0].items())


def packets(codec: str) -> list[bytes]:
    """One packet a frame, the sequence number going round."""
    encoder = parse_codec(codec).encoder(layout())
    return [
        encoder.encode(frame, Stamp((2**32 - 2 + i) % 2**32, 10**12 + 40_000_000 * i, 480, 640)).data
        for i, frame in enumerate(features())
    ]


def write_packets(path: Path, packets: list[bytes]) -> None:
    """A file of packets."""
    path.write_bytes(FILE_START + b"".join(map(framed, packets)))


def main() -> None:
    """Write the packets, and the arrays they decode to with the frames along the first axis."""
    for name, codec in CODECS.items():
        coded = packets(codec)
        write_packets(VECTORS / f"{name}.packets", coded)
        decoder = parse_codec(codec).decoder(layout())
        frames = [decoder.decode(packet).tensors for packet in coded]
        np.savez(VECTORS / f"{name}.npz", **{x: np.stack([frame[x] for frame in frames]) for x in frames[0]})
    (VECTORS / "feature.profile").write_bytes(make_profile(FEATURE_LAYOUT, 3).pack())
    for name in FEATURE:
        coded = feature_packets(name)
        write_packets(VECTORS / f"{name}.packets", coded)
        np.savez_compressed(VECTORS / f"{name}.npz", **decode_feature(name, coded))
    (VECTORS / "recording-1.spr").write_bytes(
        recordings.segment_bytes(recordings.packets(4, keyframes=(0, 2)))
    )


if __name__ == "__main__":
    main()
