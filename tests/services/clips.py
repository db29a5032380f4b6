"""Small videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (64, 96)  # (H, W) of canvas and pictures
FRAMES = 20  # of the video that cameras play unless told otherwise


def write_video(path: Path, frames: int, fps: float = 25.0) -> Path:
    """A square that moves over a still, textured scene."""
    height, width = SIZE
    scene = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for number in range(frames):
        picture = scene.copy()
        left = 4 + number % (width - 24)
        picture[20:40, left : left + 16] = (0, 0, 255)
        writer.write(picture)
    writer.release()
    return path
