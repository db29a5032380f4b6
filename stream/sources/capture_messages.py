"""What the service and its capture process say to each other, and the memory in which pictures lie between them."""

from __future__ import annotations

import json
import mmap
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# One slot is being filled, one is the newest, one is being copied, one may be on its way back.
SLOTS = 4

MESSAGE_BYTES = 65536
CLOSE_S = 0.5  # time for the child to say goodbye to the camera, which may allow few sessions at once


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """To the child: what to capture. A command line would show the password to all."""

    target: str = field(repr=False)  # a URL, or the path of a video device such as /dev/video0
    is_device: bool
    open_timeout_s: float
    rtsp_transport: str
    knock: bool = False  # it was unreachable: see first, and soon, whether it accepts connections


@dataclass(frozen=True, slots=True)
class Opening:
    """The child now opens the camera."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The camera accepts; the first picture is on its way."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Pictures of this size follow, in the shared memory whose descriptor comes with the message."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Captured:
    """A picture lies in a slot, which stays untouched until it is released."""

    slot: int
    captured_ns: int
    count: int  # pictures captured of this camera so far, this one and those that found no free slot included
    repeated: int  # of those that found a slot so far, how many were the same as the one before


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A picture was captured, but nothing can be made of it."""

    count: int  # as in Captured, this one included


@dataclass(frozen=True, slots=True)
class Damaged:
    """So many more pieces of coded data could not be decoded, or only in part."""

    pieces: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """So many pictures in a row, up to the last one, are the same."""

    pictures: int


@dataclass(frozen=True, slots=True)
class Moving:
    """The last picture differs from the one before it, after Frozen."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The camera is gone; the child waits for the next request."""

    reason: str
    failure: str  # value of a Failure
    count: int = 0  # as in Captured


@dataclass(frozen=True, slots=True)
class Release:
    """To the child: the slot may be filled again."""

    memory: int  # which of the child's Shared messages the slot belongs to, from 1
    slot: int


Message: TypeAlias = Opening | Opened | Shared | Captured | Undecodable | Damaged | Frozen | Moving | Lost

_MESSAGES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(CaptureRequest, Release),
        *(Opening, Opened, Shared, Captured, Undecodable, Damaged, Frozen, Moving, Lost),
    )
}


def dump(message: Message | CaptureRequest | Release) -> bytes:
    return json.dumps({"is": type(message).__name__, **asdict(message)}).encode()


def load(data: bytes) -> Any:
    fields = json.loads(data)
    return _MESSAGES[fields.pop("is")](**fields)


class PictureMemory:
    """Shared memory for SLOTS pictures of one size."""

    def __init__(self, descriptor: int, width: int, height: int) -> None:
        memory = mmap.mmap(descriptor, SLOTS * height * width * 3)
        # The mapping lives for as long as any of these views does.
        self.pictures: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(SLOTS, height, width, 3)
