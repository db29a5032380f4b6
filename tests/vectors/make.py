"""Golden packets: features.npz coded by every codec, and what the packets decode to.

    python -m tests.vectors.make

writes them again. features.npz is the input, four frames along the first axis, and is not made again. Do
this only when the format gets a new version: the packets are what cameras out there send.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codec.layout import FloatArray, Layout, TensorSpec
from codec.packet import Stamp
from codec.spec import CodecSpec

VECTORS = Path(__file__).parent
CODECS = {
    "raw": "raw",
    **{f"rle-{bits}": f"rle:bits={bits}" for bits in range(2, 9)},
    "rle-4-temporal": "rle:bits=4,temporal=true,keyframe_interval=3",
}


def features() -> list[dict[str, FloatArray]]:
    """The frames of features.npz, their arrays by layer."""
    with np.load(VECTORS / "features.npz", allow_pickle=False) as arrays:
        return [{name: arrays[name][index] for name in arrays} for index in range(4)]


def layout() -> Layout:
    """The layout of every packet."""
    return tuple(TensorSpec(name, tensor.shape) for name, tensor in features()[0].items())


def packets(codec: str) -> list[bytes]:
    """One packet a frame, the sequence number going round."""
    encoder = CodecSpec.parse(codec).encoder(layout())
    return [
        encoder.encode(frame, Stamp((2**32 - 2 + i) % 2**32, 10**12 + 40_000_000 * i, 480, 640)).data
        for i, frame in enumerate(features())
    ]


def main() -> None:
    """Write the packets, and the arrays they decode to with the frames along the first axis."""
    for name, codec in CODECS.items():
        coded = packets(codec)
        (VECTORS / f"{name}.packets").write_bytes(b"".join(coded))
        decoder = CodecSpec.parse(codec).decoder(layout())
        frames = [decoder.decode(packet).tensors for packet in coded]
        np.savez(VECTORS / f"{name}.npz", **{x: np.stack([frame[x] for frame in frames]) for x in frames[0]})


if __name__ == "__main__":
    main()
