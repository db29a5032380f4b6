"""A camera's sensor noise upon pictures whose clean original is what the network is judged by.

Were it judged by what it sees in the noisy picture, a codec that keeps the noise would be the better one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from services.evaluation.dataset import Dataset, LabeledPicture
from stream.sources.files import Image


def noisy(image: Image, deviation: float, number: int) -> Image:
    """The image (H, W, 3) uint8 with Gaussian noise of this standard deviation in gray levels, rounded and clipped.

    Each color of each pixel has its own; the same `number` gives the same noise.
    """
    if not deviation:
        return image
    noise = np.random.default_rng(number).standard_normal(image.shape, np.float32)
    levels: Image = np.clip(np.rint(image + np.float32(deviation) * noise), 0, 255).astype(np.uint8)
    return levels


def with_noise(dataset: Dataset, deviation: float, repeat: int = 1) -> Dataset:
    """The dataset as a camera with such noise sees it, each picture `repeat` times, and fresh noise each time.

    Repeated pictures are consecutive frames. Labels stay; the clean picture is what the network is judged by.
    """
    return replace(
        dataset, expected=dataset.expected * repeat, pictures=_Noisy(dataset.pictures, deviation, repeat)
    )


@dataclass(frozen=True, slots=True)
class _Noisy:
    pictures: Iterable[LabeledPicture]
    deviation: float
    repeat: int

    def __iter__(self) -> Iterator[LabeledPicture]:
        number = 0
        for picture in self.pictures:
            for _ in range(self.repeat):
                image = noisy(picture.image, self.deviation, number)
                yield replace(picture, image=image, clean=picture.image)
                number += 1
