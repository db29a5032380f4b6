"""The sources that `splitcast evaluate` is told of: folders, clips and virtual cameras, with noise or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from services.errors import SettingsError
from services.evaluation.dataset import Dataset, read_clip, read_images, read_virtual
from services.evaluation.noise import with_noise
from services.evaluation.settings import REPEAT, EvaluateSettings
from stream.sources.virtual import is_virtual
from stream.sources.virtual_camera import VirtualCamera


def open_sources(settings: EvaluateSettings) -> list[Dataset]:
    """In the order of images and clips. Raises SettingsError, SourceError or BadVirtualCamera."""
    sampling: dict[str, Any] = {"every": settings.every, "max_frames": settings.max_frames}
    images = [read_images(settings.data, **sampling, labels=settings.labels)] if settings.data else []
    clips = [
        _virtual(clip, settings) if is_virtual(clip) else read_clip(Path(clip), **sampling)
        for clip in settings.clip
    ]
    if settings.noise is None:
        return images + clips
    return [with_noise(dataset, settings.noise, settings.repeat or REPEAT) for dataset in images] + [
        clip if is_virtual(text) else with_noise(clip, settings.noise)
        for text, clip in zip(settings.clip, clips, strict=True)
    ]


def _virtual(text: str, settings: EvaluateSettings) -> Dataset:
    """The virtual camera, judged by its scene without noise."""
    camera = VirtualCamera.parse(text)
    if settings.noise is not None:
        camera = replace(camera, noise=settings.noise)
    if settings.max_frames is None:
        raise SettingsError(f"{text} never ends; say how many frames to take with --max-frames")
    scene = read_virtual(replace(camera, noise=0), settings.max_frames, settings.every)
    return replace(with_noise(scene, camera.noise), name=str(camera))
