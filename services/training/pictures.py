"""What the demo network is trained on: pictures, and endless random views of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from services.evaluation.dataset import read_clip, read_images
from stream.detections import Detections
from stream.letterbox import PADDING
from stream.sources.files import read_image

CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "dog")
COCO_IDS = (0, 1, 2, 3, 5, 7, 16)  # the same classes among COCO's 80

# The photographs that the ultralytics package installs, labeled by hand: class, left, top, right, bottom in pixels.
PHOTOGRAPHS: dict[str, tuple[tuple[str, int, int, int, int], ...]] = {
    "bus.jpg": (
        ("bus", 8, 230, 803, 737),
        ("person", 51, 398, 246, 903),
        ("person", 224, 405, 345, 860),
        ("person", 668, 393, 810, 879),
        ("person", 0, 553, 78, 873),
    ),
    "zidane.jpg": (("person", 122, 202, 1152, 720), ("person", 748, 42, 1138, 713)),
}

CLIP_FRAMES = 60  # of each clip, spread over it
LONG_SIDE = 640  # that a picture has on the network's canvas
LEAST_VISIBLE = 0.2  # share of an object that a view must show for it to count as there
LEAST_SIDE = 6.0  # pixels of a labeled object
MOSAIC = 0.3  # share of samples that are made of four views
LABELED = 0.6  # share of samples, beside the photographs, from pictures with labels

# In turns: canvas (H, W), views of the demo's own photographs, views of everything else. Large canvases show objects
# as large as the demo does; small ones show more pictures in the same time.
CANVASES = (((320, 320), 3, 13), ((480, 640), 2, 4))


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture with boxes of the demo's classes; None where nobody has labeled it."""

    image: NDArray[np.uint8]  # (H, W, 3), BGR
    boxes: NDArray[np.float32] | None  # (N, 5): class, left, top, right, bottom in pixels


def photographs() -> list[Example]:
    """The photographs of the demo's own scenes."""
    from ultralytics.utils import ASSETS

    examples = []
    for name, objects in PHOTOGRAPHS.items():
        rows = [(CLASSES.index(kind), *corners) for kind, *corners in objects]
        examples.append(Example(read_image(Path(ASSETS) / name), np.array(rows, np.float32)))
    return examples


def coco(folder: Path) -> list[Example]:
    """A folder of COCO images, with the labels of the demo's classes."""
    return [Example(picture.image, demo_boxes(picture.labels)) for picture in read_images(folder).pictures]


def clips(folder: Path) -> list[Example]:
    """Frames of every clip of a folder, without labels."""
    examples = []
    for path in sorted(folder.glob("*.mp4")):
        every = max(read_clip(path).expected // CLIP_FRAMES, 1)
        examples += [Example(picture.image, None) for picture in read_clip(path, every, CLIP_FRAMES).pictures]
    return examples


def demo_boxes(labels: Detections | None) -> NDArray[np.float32] | None:
    """Labels with COCO's classes as rows of the demo's classes; those of other classes are left out."""
    if labels is None:
        return None
    rows = [
        (COCO_IDS.index(kind), *box)
        for kind, box in zip(labels.class_id.tolist(), labels.boxes.tolist(), strict=True)
        if kind in COCO_IDS
    ]
    return np.array(rows, np.float32).reshape(-1, 5)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Views of one size."""

    images: torch.Tensor  # uint8 (B, 3, H, W), RGB
    targets: torch.Tensor  # float32 (N, 6): image of the batch, class, left, top, right, bottom in pixels
    labeled: torch.Tensor  # bool (B,): targets holds all there is to see
    distilled: torch.Tensor  # bool (B,): the teacher knows better than nothing


class Batches(Dataset["Batch"]):
    """Batches of random views; batch n is the same for the same examples, seed and n."""

    def __init__(
        self, examples: Sequence[Example], photographs: Sequence[Example], numbers: range, seed: int
    ) -> None:
        self._pools = {
            labeled: [e for e in examples if (e.boxes is not None) == labeled] for labeled in (True, False)
        }
        self._photographs = photographs
        self._numbers, self._seed = numbers, seed

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Batch:
        number = self._numbers[index]
        rng = np.random.default_rng((self._seed, number))
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        canvas, own, others = CANVASES[number % len(CANVASES)]
        images, rows, labeled, distilled = [], [], [], []
        for position in range(own + others):
            if position < own:
                pool, is_labeled = self._photographs, True
            else:
                is_labeled = rng.random() < LABELED
                pool = self._pools[is_labeled] or self._pools[not is_labeled]
                is_labeled = pool[0].boxes is not None
            image, boxes = _sample(pool, canvas, position < own, rng)
            images.append(np.ascontiguousarray(disturb(image, rng)[..., ::-1].transpose(2, 0, 1)))
            labeled.append(is_labeled)
            distilled.append(position >= own)
            if is_labeled:
                rows.append(np.column_stack((np.full(len(boxes), position), boxes)))
        targets = np.concatenate(rows) if rows else np.empty((0, 6))
        return Batch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(targets.astype(np.float32)),
            torch.tensor(labeled),
            torch.tensor(distilled),
        )


def _sample(
    pool: Sequence[Example], canvas: tuple[int, int], close: bool, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A view, or a mosaic of four that meet at a random point; without boxes where the pool has none."""
    height, width = canvas
    image = np.empty((height, width, 3), np.uint8)
    row, column = (round(side * rng.uniform(0.3, 0.7)) for side in canvas)
    tiles = [
        (0, 0, row, column),
        (0, column, row, width),
        (row, 0, height, column),
        (row, column, height, width),
    ]
    if rng.random() >= MOSAIC:
        tiles = [(0, 0, height, width)]
    placed = [np.empty((0, 5), np.float32)]
    for top, left, bottom, right in tiles:
        example = pool[int(rng.integers(len(pool)))]
        image[top:bottom, left:right], boxes = _view(example, (bottom - top, right - left), close, rng)
        placed.append(boxes + np.array([0, left, top, left, top], np.float32))
    return image, np.concatenate(placed)


def _view(
    example: Example, canvas: tuple[int, int], close: bool, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A random part of an example on a canvas, and those of its boxes that can be seen there."""
    image = example.image
    height, width = image.shape[:2]
    # The demo's photographs are seen as its camera shows them, all else at every size.
    low, high = (0.85, 2.0) if close else (0.5, 1.7)
    fit = LONG_SIDE / max(height, width) * (max(canvas) / LONG_SIDE) ** (1.0 if close else 0.5)
    scale = fit * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    stretch, angle = np.exp(rng.normal(0, 0.06)), np.deg2rad(rng.normal(0, 2.0))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([scale * stretch * mirror, scale / stretch])
    outline = _corners(np.array([[0, 0, width, height]], np.float32))[0] @ linear.T
    low_x, low_y = outline.min(0)
    high_x, high_y = outline.max(0)
    shift = np.array([_place(low_x, high_x, canvas[1], rng), _place(low_y, high_y, canvas[0], rng)])
    matrix = linear
    if scale < 0.7:  # warpAffine does not filter: shrink first, so that a view aliases as little as a camera
        image = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
        matrix = linear * [width / image.shape[1], height / image.shape[0]]
    view = cv2.warpAffine(image, np.column_stack((matrix, shift)), canvas[::-1], borderValue=(PADDING,) * 3)
    if example.boxes is None:
        return np.asarray(view, np.uint8), np.empty((0, 5), np.float32)
    return np.asarray(view, np.uint8), _seen(example.boxes, linear, shift, canvas)


def _place(low: float, high: float, side: int, rng: np.random.Generator) -> float:
    """Where the picture goes along one axis: all of the canvas covered if it is larger, inside if it is smaller."""
    spare = side - (high - low)
    return float(rng.uniform(min(spare, 0), max(spare, 0)) - low)


def _corners(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """The four corners (N, 4, 2) of boxes (N, 4)."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].astype(np.float64).reshape(-1, 4, 2)


def _seen(
    boxes: NDArray[np.float32],
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    canvas: tuple[int, int],
) -> NDArray[np.float32]:
    """Boxes that a view shows enough of, cut at its border."""
    moved = _corners(boxes[:, 1:]) @ linear.T + shift
    whole = np.hstack((moved.min(1), moved.max(1)))
    cut = whole.clip(0, [canvas[1], canvas[0]] * 2)
    sides = cut[:, 2:] - cut[:, :2]
    visible = sides.prod(1) / np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1)
    keep = (visible >= LEAST_VISIBLE) & (sides.min(1, initial=np.inf) >= LEAST_SIDE)
    return np.asarray(np.hstack((boxes[:, :1], cut))[keep], np.float32)


def disturb(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What light, lens, sensor and an earlier codec do to a picture."""
    if rng.random() < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)), np.uint8)
    if rng.random() < 0.2:
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])[1]
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    if rng.random() < 0.5:
        hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hue[..., 0] = (hue[..., 0].astype(np.int16) + int(rng.integers(-6, 7))) % 180
        hue[..., 1] = cv2.convertScaleAbs(hue[..., 1], alpha=rng.uniform(0.4, 1.5))
        image = np.asarray(cv2.cvtColor(hue, cv2.COLOR_HSV2BGR), np.uint8)
    levels = np.arange(256) / 255
    curve = (levels ** np.exp(rng.normal(0, 0.15)) * rng.uniform(0.6, 1.3)).clip(0, 1)
    image = np.asarray(cv2.LUT(image, (curve * 255).astype(np.uint8)), np.uint8)
    if rng.random() < 0.6:
        # Now and then far more than a sensor's: fine detail is rare in pictures, and filters are to be learnt for it.
        strength = rng.uniform(0.5, 8) if rng.random() < 0.8 else rng.uniform(8, 50)
        noise = cv2.randn(np.empty(image.shape, np.int16), (0, 0, 0), (strength,) * 3)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    return image
