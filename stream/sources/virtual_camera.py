"""A camera made of photographs: it pans, zooms and shakes over them, with sensor noise and a drifting exposure.

    camera = VirtualCamera.parse("demo:scene=bus,fps=15,size=640x480,noise=2,seed=0")
    image = camera.render(0)

The photographs are two of ultralytics, in `photographs/`. Every frame is a function of the settings and
its number alone, so it can be made again, in any order.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Self, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from codec.spec_text import format_spec, parse_spec
from stream.errors import BadVirtualCamera, UnreadableImage
from stream.redact import redact_url
from stream.sources.files import Image, read_image

FOLDER = Path(__file__).parent / "photographs"

Range: TypeAlias = tuple[float, float]

FPS_RANGE = (1, 120)
SIDE_RANGE = (64, 1920)  # of the largest photograph 1280 pixels are wide: a larger frame would show no more
NOISE_RANGE = (0, 64)
SEED_RANGE = (0, 2**32 - 1)

GAIN_RANGE = (0.75, 1.2)
WHITE_BALANCE = 0.03  # most by which red gains and blue loses, or the other way round
MAX_SHOWN = 80  # characters of a bad setting that its refusal repeats
NOISE_OFFSETS = 1 << 20  # places in the noise at which a frame's own may begin


@dataclass(frozen=True, slots=True)
class Shot:
    """Where one camera looks: a window of the frame's shape, which never leaves the photograph.

    A range is that of the camera's movement; equal ends keep it still.
    """

    photograph: str
    zoom: Range  # 1: the largest window that the photograph holds
    across: Range  # place of the window: 0 at the photograph's left edge, 1 at its right
    down: Range  # 0 at its top, 1 at its bottom
    shake: float  # amplitude in pixels of the photograph
    seconds: float = math.inf  # until the next shot of the scene


SCENES: dict[str, tuple[Shot, ...]] = {
    # A street: a bus, two men in the middle, two more people at the edges.
    "bus": (Shot("bus", zoom=(1.05, 1.4), across=(0, 0.6), down=(0.4, 0.55), shake=3),),
    # Two men at the edge of a pitch.
    "zidane": (Shot("zidane", zoom=(1.05, 1.3), across=(0.45, 0.75), down=(0, 0.5), shake=4),),
    # The street from a camera that stands still: only noise and exposure differ between frames.
    "tripod": (Shot("bus", zoom=(1.1, 1.1), across=(0.5, 0.5), down=(0.48, 0.48), shake=0),),
    # Cuts between views of both photographs.
    "tour": (
        Shot("bus", zoom=(1.05, 1.2), across=(0, 1), down=(0.4, 0.5), shake=2, seconds=6),
        Shot("zidane", zoom=(1.05, 1.2), across=(0.45, 0.75), down=(0, 0.5), shake=4, seconds=5),
        Shot("bus", zoom=(1.25, 1.4), across=(0, 0.2), down=(0.42, 0.52), shake=3, seconds=5),
        Shot("zidane", zoom=(1.3, 1.6), across=(0.3, 0.8), down=(0, 0.4), shake=3, seconds=4),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a frame shows.

    The matrix (2, 3) float64 takes points (x, y, 1) of the photograph to points of the frame. Both count pixels
    from the outer corner at the top left, as boxes do: the middle of the first pixel is at (0.5, 0.5).
    """

    photograph: str
    matrix: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wander:
    """A smooth course between -1 and 1 that never repeats: a sum of sines.

    The sines' periods lie between the two given, in seconds; they and the phases are drawn from the generator.
    """

    rates: NDArray[np.float64]
    phases: NDArray[np.float64]

    _WEIGHTS = np.array([0.5, 0.3, 0.2])

    @classmethod
    def draw(cls, generator: np.random.Generator, shortest_s: float, longest_s: float) -> Self:
        periods_s = shortest_s * (longest_s / shortest_s) ** generator.random(3)
        return cls(2 * np.pi / np.sort(periods_s)[::-1], 2 * np.pi * generator.random(3))

    def at(self, t_s: float) -> float:
        return float(self._WEIGHTS @ np.sin(self.rates * t_s + self.phases))


@dataclass(frozen=True)
class VirtualCamera:
    """Settings, and the frames that follow from them. All methods belong to one thread at a time.

    Raises BadVirtualCamera for a setting that makes no sense and where a photograph is missing.
    """

    scene: str = "tour"
    fps: float = 15.0  # frames a second
    size: tuple[int, int] = (640, 480)  # width and height
    noise: float = 2.0  # standard deviation in gray levels
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """The camera that `demo:setting=value,...` stands for; settings left out have their defaults."""
        try:
            kind, settings = parse_spec(text)
        except ValueError as error:
            raise BadVirtualCamera(str(error)) from None
        if kind != "demo":
            raise BadVirtualCamera(f"{_shown(text)} is no virtual camera; begin with demo:")
        values: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in _SETTINGS:
                known = ", ".join(_SETTINGS)
                raise BadVirtualCamera(f"the virtual camera has no setting {_shown(name)}; there are {known}")
            try:
                values[name] = _SETTINGS[name].parse(value)
            except ValueError:
                raise _refused(name, value) from None
        return cls(**values)

    def __post_init__(self) -> None:
        for name, setting in _SETTINGS.items():
            if not setting.allows(value := getattr(self, name)):
                raise _refused(name, value)
        for shot in SCENES[self.scene]:
            photograph(shot.photograph)

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return format_spec("demo", {name: _SETTINGS[name].write(value) for name, value in values.items()})

    def render(self, n: int) -> Image:
        """Frame n >= 0, a new array (H, W, 3)."""
        t_s = n / self.fps
        index = self._shot_index(t_s)
        exposed = cv2.LUT(self._warp(index, t_s), self._gains(t_s))
        noise: Any = self._noise_of(n) if self.noise else 0.0
        image: Image = cv2.add(exposed, noise, dtype=cv2.CV_8U)  # rounds once, and clips
        return image

    def view(self, n: int) -> View:
        """What frame n shows."""
        t_s = n / self.fps
        shot = SCENES[self.scene][self._shot_index(t_s)]
        left, top, step = self._window(shot, t_s)
        matrix = np.array([[1 / step, 0, -left / step], [0, 1 / step, -top / step]])
        return View(shot.photograph, matrix)

    def _shot_index(self, t_s: float) -> int:
        ends_s = list(accumulate(shot.seconds for shot in SCENES[self.scene]))
        return bisect(ends_s, t_s % ends_s[-1])

    def _window(self, shot: Shot, t_s: float) -> tuple[float, float, float]:
        """Left and top edge of what a shot shows, and the size of a frame's pixel, in the photograph's pixels."""
        height, width = photograph(shot.photograph).shape[:2]
        course = self._course
        step = _largest_step(shot, self.size) / _between(shot.zoom, course["zoom"].at(t_s))
        left = _place(
            width - step * self.size[0],
            _between(shot.across, course["across"].at(t_s)),
            shot.shake,
            course["shake across"].at(t_s),
        )
        top = _place(
            height - step * self.size[1],
            _between(shot.down, course["down"].at(t_s)),
            shot.shake,
            course["shake down"].at(t_s),
        )
        return left, top, step

    def _warp(self, index: int, t_s: float) -> Image:
        left, top, step = self._window(SCENES[self.scene][index], t_s)
        image, across, down = self._scaled[index]
        # From frame to scaled photograph. OpenCV counts from the middle of the first pixel, hence the halves.
        matrix = np.array(
            [
                [step * across, 0, (0.5 * step + left) * across - 0.5],
                [0, step * down, (0.5 * step + top) * down - 0.5],
            ]
        )
        # At the photograph's edge interpolation wants half a pixel more than there is: hence the border.
        warped: Image = cv2.warpAffine(
            image,
            matrix,
            self.size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return warped

    def _gains(self, t_s: float) -> NDArray[np.float32]:
        """Exposure and white balance as a table (1, 256, 3) from a pixel's value to that which the sensor gives."""
        exposure = _between(GAIN_RANGE, self._course["exposure"].at(t_s))
        warmth = WHITE_BALANCE * self._course["white balance"].at(t_s)
        gains = exposure * np.array([1 - warmth, 1, 1 + warmth], np.float32)
        return (np.arange(256, dtype=np.float32)[:, None] * gains)[None].astype(np.float32)

    def _noise_of(self, n: int) -> NDArray[np.float32]:
        offset = int(np.random.default_rng((self.seed, n)).integers(NOISE_OFFSETS))
        width, height = self.size
        return self._noise[offset : offset + height * width * 3].reshape(height, width, 3)

    @cached_property
    def _noise(self) -> NDArray[np.float32]:
        """One long run of noise, of which each frame shows another part: drawing anew would cost more than all else."""
        width, height = self.size
        samples = NOISE_OFFSETS + height * width * 3
        noise = np.random.default_rng(self.seed).standard_normal(samples, np.float32)
        return noise * np.float32(self.noise)

    @cached_property
    def _course(self) -> dict[str, Wander]:
        """How the camera moves: periods from that of a hand or a pole in the wind to that of clouds."""
        generator = np.random.default_rng(self.seed)
        return {
            "across": Wander.draw(generator, 6, 20),
            "down": Wander.draw(generator, 6, 20),
            "zoom": Wander.draw(generator, 8, 25),
            "shake across": Wander.draw(generator, 0.4, 2),
            "shake down": Wander.draw(generator, 0.4, 2),
            "exposure": Wander.draw(generator, 10, 40),
            "white balance": Wander.draw(generator, 20, 60),
        }

    @cached_property
    def _scaled(self) -> list[tuple[Image, float, float]]:
        """Each shot's photograph, with the exact scale of its width and height.

        Scaled to a frame's resolution at the middle of the zoom, as the warp takes four pixels for one of the
        frame, and from a larger picture that would leave some out: fine patterns would flicker.
        """
        return [self._scale(shot) for shot in SCENES[self.scene]]

    def _scale(self, shot: Shot) -> tuple[Image, float, float]:
        image = photograph(shot.photograph)
        height, width = image.shape[:2]
        scale = math.sqrt(math.prod(shot.zoom)) / _largest_step(shot, self.size)
        if scale >= 1:
            return image, 1, 1
        small = round(width * scale), round(height * scale)
        return cv2.resize(image, small, interpolation=cv2.INTER_AREA), small[0] / width, small[1] / height


@cache
def photograph(name: str) -> Image:
    """The photograph `bus` (810 x 1080) or `zidane` (1280 x 720), read only. Raises BadVirtualCamera without it."""
    path = FOLDER / f"{name}.jpg"
    try:
        image = read_image(path)
    except UnreadableImage as error:
        raise BadVirtualCamera(
            f"{path}, which the virtual camera shows, cannot be read; install splitcast again"
        ) from error
    image.setflags(write=False)
    return image


def _largest_step(shot: Shot, size: tuple[int, int]) -> float:
    """Size of a frame's pixel in the photograph's where the frame shows as much of it as it can."""
    height, width = photograph(shot.photograph).shape[:2]
    step: float = min(width / size[0], height / size[1])
    return step


def _between(ends: Range, course: float) -> float:
    """The value of a range at which a course between -1 and 1 is."""
    return ends[0] + (ends[1] - ends[0]) * (1 + course) / 2


def _place(room: float, place: float, shake: float, course: float) -> float:
    """Where a window that has `room` to move stands at a place from 0 to 1, shaken no further than there is room."""
    shake = min(shake, room / 2)
    return shake + (room - 2 * shake) * place + shake * course


@dataclass(frozen=True, slots=True)
class _Setting:
    expected: str
    parse: Callable[[str], Any]  # may raise ValueError
    allows: Callable[[Any], bool]
    write: Callable[[Any], str]


def _within(limits: tuple[int, int]) -> Callable[[float], bool]:
    return lambda value: limits[0] <= value <= limits[1]


# Python's own numbers may have underscores, white space and digits of any script.
_INTEGER = re.compile("-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def _parse_integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("no whole number")
    return int(text)


def _parse_number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return float(text)


def _parse_size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return _parse_integer(width), _parse_integer(height)


_SETTINGS = {
    "scene": _Setting(f"one of {', '.join(SCENES)}", str, SCENES.__contains__, str),
    "fps": _Setting(
        "a number from {} to {}".format(*FPS_RANGE), _parse_number, _within(FPS_RANGE), "{:.15g}".format
    ),
    "size": _Setting(
        "WIDTHxHEIGHT, each from {} to {} pixels".format(*SIDE_RANGE),
        _parse_size,
        lambda size: all(map(_within(SIDE_RANGE), size)),
        lambda size: f"{size[0]}x{size[1]}",
    ),
    "noise": _Setting(
        "gray levels, from {} to {}".format(*NOISE_RANGE),
        _parse_number,
        _within(NOISE_RANGE),
        "{:.15g}".format,
    ),
    "seed": _Setting(
        "a whole number from {} to {}".format(*SEED_RANGE), _parse_integer, _within(SEED_RANGE), str
    ),
}


def _refused(name: str, value: object) -> BadVirtualCamera:
    return BadVirtualCamera(
        f"the virtual camera's {name} is {_shown(value)}; give {_SETTINGS[name].expected}"
    )


def _shown(value: object) -> str:
    """A value as a message may repeat it: short, and without a password that went astray."""
    return redact_url(repr(value))[:MAX_SHOWN]
