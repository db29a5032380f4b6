"""Small frames that the codec's tests share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from codec.layout import FloatArray, Layout, TensorSpec
from tests.codec import reference_rle as reference

LAYOUT: Layout = (TensorSpec("4.m", (2, 3, 4)), TensorSpec("4.cv2", (5,)))
STAMP = (7, 123_456_789_012, 480, 640)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def features(seed: int, layout: Layout = LAYOUT) -> dict[str, FloatArray]:
    """One frame of coefficients as SiLU leaves them: most near zero, a few large."""
    rng = np.random.default_rng(seed)
    frame = {}
    for spec in layout:
        x = rng.normal(-1, 1.5, spec.shape)
        frame[spec.name] = (x / (1 + np.exp(-x))).astype(np.float32)
    return frame


def video(seed: int, frames: int, layout: Layout = LAYOUT) -> list[dict[str, FloatArray]]:
    """Frames that differ a little from one to the next, in their ranges too."""
    still, rng = features(seed, layout), np.random.default_rng(seed + 1)
    return [
        {
            name: (tensor * rng.uniform(0.95, 1.05) + rng.normal(0, 0.02, tensor.shape)).astype(np.float32)
            for name, tensor in still.items()
        }
        for _ in range(frames)
    ]


def tables(frame: dict[str, FloatArray]) -> list[reference.Table]:
    """A frame as the reference implementation takes it."""
    return [reference.Table(name, x.shape, [float(v) for v in x.ravel()]) for name, x in frame.items()]


def layout_of(frame: dict[str, FloatArray]) -> Layout:
    """The layout that describes a frame."""
    return tuple(TensorSpec(name, tensor.shape) for name, tensor in frame.items())


@st.composite
def any_frames(draw, count=1):
    """Frames of one layout of up to three tensors, of every float32 that is finite."""
    shapes = draw(st.lists(array_shapes(max_dims=4, max_side=6), min_size=1, max_size=3))
    return [
        {f"layer {i}": draw(arrays(np.float32, shape, elements=FINITE)) for i, shape in enumerate(shapes)}
        for _ in range(count)
    ]
