"""Live capture in a process of its own, because a read from a hung camera cannot be interrupted.

Both ends live here. `CaptureProcess` starts this file as a program and talks to it over a socket pair:
the child sends small messages, and the pictures lie in anonymous shared memory that it fills and the parent
reads. Nothing has a name in the system, so nothing is left behind, however either side dies.

A fresh interpreter rather than `multiprocessing`: that would import the service's main module, torch and
all, into the child, and a fork would copy a process full of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import mmap
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# One slot is being filled, one is the newest, one is being copied, one may be on its way back.
SLOTS = 4

_MESSAGE_BYTES = 65536
_CLOSE_S = 0.5  # time for the child to say goodbye to the camera, which may allow few sessions at once
_KILL_S = 1.0


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What to capture. The first message, to the child: a command line would show the password to all."""

    target: str  # a URL, or a video device such as /dev/video0
    open_timeout_s: float
    read_timeout_s: float
    rtsp_transport: str


@dataclass(frozen=True, slots=True)
class Opening:
    """The child runs and now opens the camera."""


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
    count: int  # pictures captured by this child so far, this one and those that found no free slot included


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A picture was captured, but nothing can be made of it."""

    count: int  # as in Captured, this one included


@dataclass(frozen=True, slots=True)
class Lost:
    """The camera is gone; the child ends."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Release:
    """To the child: the slot may be filled again."""

    memory: int  # which of the child's Shared messages the slot belongs to, from 1
    slot: int


Message: TypeAlias = Opening | Opened | Shared | Captured | Undecodable | Lost

_MESSAGES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (CaptureRequest, Opening, Opened, Shared, Captured, Undecodable, Lost, Release)
}


def _dump(message: Message | CaptureRequest | Release) -> bytes:
    return json.dumps({"is": type(message).__name__, **asdict(message)}).encode()


def _load(data: bytes) -> Any:
    fields = json.loads(data)
    return _MESSAGES[fields.pop("is")](**fields)


class _Memory:
    """Shared memory for SLOTS pictures of one size."""

    def __init__(self, descriptor: int, width: int, height: int) -> None:
        memory = mmap.mmap(descriptor, SLOTS * height * width * 3)
        # The mapping lives for as long as any of these views does.
        self.pictures: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(SLOTS, height, width, 3)


class CaptureEnded(Exception):
    """The capture process has ended, or speaks nonsense; nothing more comes from it."""


class Picture:
    """A captured picture in shared memory. It keeps its slot until released."""

    def __init__(
        self, process: CaptureProcess, image: NDArray[np.uint8], message: Captured, memory: int
    ) -> None:
        self.captured_ns = message.captured_ns
        self.count = message.count
        self._process, self._image = process, image
        self._release = Release(memory, message.slot)

    def copy(self) -> NDArray[np.uint8]:
        """The image, (H, W, 3) BGR uint8, in memory of its own. May run on any thread."""
        return self._image.copy()

    def release(self) -> None:
        """Let the slot be filled again."""
        self._process.send(self._release)


class CaptureProcess:
    """A capture child, seen from the service. Only `stop` waits; starting takes a few milliseconds."""

    def __init__(self, request: CaptureRequest) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    # -P: this file's folder must not become the first place to import from.
                    [sys.executable, "-P", str(Path(__file__)), str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # FFmpeg's complaints contain the URL with its password
                )
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._memories = 0
        self._memory: _Memory | None = None
        self.send(request)

    def fileno(self) -> int:
        """Readable when `receive` has something to say."""
        return self._socket.fileno()

    def receive(self) -> Opening | Opened | Shared | Picture | Undecodable | Lost | None:
        """What the child says next; None if nothing waits.

        Raises CaptureEnded when the child has ended without a word.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise CaptureEnded("the capture process ended unexpectedly") from error
        if not data:
            raise CaptureEnded("the capture process ended unexpectedly")
        try:
            return self._understand(_load(data), descriptors)
        # The child decodes what a stranger sends: believe it as little as the stranger.
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, OSError) as error:
            raise CaptureEnded("the capture process sent an unreadable message") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _understand(
        self, message: Message, descriptors: list[int]
    ) -> Opening | Opened | Shared | Picture | Undecodable | Lost:
        match message:
            case Shared(width, height):
                self._memory = _Memory(descriptors[0], width, height)
                self._memories += 1
            case Captured(slot):
                if self._memory is None:
                    raise LookupError("a picture before its memory")
                return Picture(self, self._memory.pictures[slot], message, self._memories)
        return message

    def send(self, message: CaptureRequest | Release) -> None:
        """Send without waiting. A child that is gone or hung gets nothing, which `receive` will tell."""
        with contextlib.suppress(OSError):
            self._socket.send(_dump(message))

    def kill(self) -> None:
        """End the child now, whatever it does. `stop` must follow."""
        self._process.kill()

    def stop(self) -> None:
        """Let the child leave the camera, and kill it if it does not. Returns within about two seconds."""
        self._socket.close()
        self._memory = None
        try:
            self._process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # A process stuck in a device driver dies only when the driver lets go of it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_S)


# --- The child. ---


class FreeSlots:
    """The slots of the latest memory that may be filled. One thread takes them, another gives them back."""

    def __init__(self) -> None:
        # One attribute, swapped whole: a slot of former memory must not come free in the new.
        self._free: tuple[int, queue.SimpleQueue[int]] = (0, queue.SimpleQueue())

    def renew(self) -> None:
        """All slots of new memory are free, those of former memory are forgotten."""
        free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(SLOTS):
            free.put(slot)
        self._free = (self._free[0] + 1, free)

    def take(self) -> int | None:
        try:
            return self._free[1].get_nowait()
        except queue.Empty:
            return None

    def put_back(self, slot: int) -> None:
        """For the thread that took the slot, which is also the one that renews."""
        self._free[1].put(slot)

    def give_back(self, release: Release) -> None:
        memory, free = self._free
        if release.memory == memory:
            free.put(release.slot)


class _Parent:
    """The service, seen from the child: takes messages, gives slots back, and its end is the child's."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.slots = FreeSlots()
        self.gone = threading.Event()

    def request(self) -> CaptureRequest:
        message = _load(self._channel.recv(_MESSAGE_BYTES))
        assert isinstance(message, CaptureRequest)
        threading.Thread(target=self._listen, daemon=True).start()
        return message

    def share(self, width: int, height: int) -> _Memory:
        """New memory, all of whose slots are free."""
        descriptor = os.memfd_create("splitcast-capture")
        try:
            os.ftruncate(descriptor, SLOTS * height * width * 3)
            memory = _Memory(descriptor, width, height)
            self.slots.renew()
            socket.send_fds(self._channel, [_dump(Shared(width, height))], [descriptor])
        finally:
            os.close(descriptor)
        return memory

    def tell(self, message: Message) -> None:
        self._channel.send(_dump(message))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._channel.recv(_MESSAGE_BYTES):
                self.slots.give_back(_load(data))
        self.gone.set()
        # The main thread sees this after its read and leaves the camera politely, unless the read hangs.
        time.sleep(_CLOSE_S)
        os._exit(0)


def _capture(parent: _Parent, request: CaptureRequest) -> None:
    """Capture until the camera or the parent is gone."""
    import cv2

    parent.tell(Opening())
    started_s = time.monotonic()
    with _complaints() as complaints:
        camera = _open(cv2, request)
        if not camera.isOpened():
            parent.tell(Lost(explain(request, time.monotonic() - started_s, complaints()), 0))
            return
    parent.tell(Opened())
    memory: _Memory | None = None
    count = 0
    decoded_ns = time.monotonic_ns()
    while not parent.gone.is_set():
        started_ns = time.monotonic_ns()
        grabbed = camera.grab()
        captured_ns = time.monotonic_ns()
        took_s = (captured_ns - started_ns) / 1e9
        # A read that outlasts its timeout may still return True, with an old picture.
        if took_s >= request.read_timeout_s:
            parent.tell(Lost(f"no picture for {took_s:.1f} s", count))
            break
        if not grabbed:
            parent.tell(Lost("the stream ended", count))
            break
        count += 1
        slot = parent.slots.take() if memory else None
        if memory and slot is None:
            continue  # the parent is busy and will learn from the count that it missed this one
        ok, image = camera.retrieve(None if memory is None else memory.pictures[slot])
        if not ok:
            if slot is not None:
                parent.slots.put_back(slot)
            parent.tell(Undecodable(count))
            undecodable_s = (captured_ns - decoded_ns) / 1e9
            if undecodable_s >= request.read_timeout_s:
                parent.tell(Lost(f"no picture that can be decoded for {undecodable_s:.1f} s", count))
                break
            continue
        decoded_ns = captured_ns
        if memory is None or image.shape != memory.pictures.shape[1:]:
            # The first picture, or the camera changed its resolution: OpenCV then allocates an image.
            memory = parent.share(width=image.shape[1], height=image.shape[0])
            slot = parent.slots.take()
            memory.pictures[slot] = image
        assert slot is not None
        parent.tell(Captured(slot, captured_ns, count))
    camera.release()


def _open(cv2: Any, request: CaptureRequest) -> Any:
    if request.target.startswith("/dev/"):
        return cv2.VideoCapture(request.target, cv2.CAP_V4L2, [cv2.CAP_PROP_BUFFERSIZE, 1])
    if request.target.startswith("rtsp"):
        # FFmpeg would look at the stream for some three seconds before the first picture.
        options = f"rtsp_transport;{request.rtsp_transport}|analyzeduration;200000|probesize;65536"
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
    return cv2.VideoCapture(
        request.target,
        cv2.CAP_FFMPEG,
        [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            math.ceil(request.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            math.ceil(request.read_timeout_s * 1000),
            cv2.CAP_PROP_N_THREADS,
            1,  # frame threads hold pictures back
        ],
    )


@contextlib.contextmanager
def _complaints() -> Iterator[Callable[[], str]]:
    """Catch what C libraries print; yields a function that returns it so far.

    Outside the block it goes nowhere, so that a long broken stream fills no memory.
    """
    caught = os.memfd_create("splitcast-complaints")
    outside = os.dup(2)
    for output in (1, 2):  # OpenCV prints FFmpeg's errors to standard output
        os.dup2(caught, output)

    def read() -> str:
        ctypes.CDLL(None).fflush(None)
        return os.pread(caught, _MESSAGE_BYTES, 0).decode(errors="replace")

    try:
        yield read
    finally:
        for output in (1, 2):
            os.dup2(outside, output)
        os.close(outside)
        os.close(caught)


def explain(request: CaptureRequest, took_s: float, complaints: str) -> str:
    """Why the camera did not open, for people: by the clock, or by what FFmpeg said last."""
    if took_s >= request.open_timeout_s:
        return f"no answer for {took_s:.1f} s"
    if request.target.startswith("/dev/") and not Path(request.target).exists():
        return f"there is no {request.target}"
    userinfo = request.target.partition("://")[2].rpartition("@")[0]
    if set(userinfo) & set("/?#@"):
        # FFmpeg ends the host at the first / ? or #, so what it names as the host may be the password.
        return "it cannot be opened; in a user name or password, write / ? # @ as %2F %3F %23 %40"
    lines = [re.sub(r"^(\[[^\]]*\]\s*)+", "", line).strip() for line in complaints.splitlines()]
    complaint = next((line for line in reversed(lines) if line), "")
    return f"it cannot be opened: {complaint[:200]}" if complaint else "it cannot be opened"


def main(descriptor: int) -> None:
    """Run the child on its end of the socket pair."""
    # The terminal's Ctrl-C and a service manager's stop reach the whole group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "16"  # errors: they say why a camera refuses
    parent = _Parent(socket.socket(fileno=descriptor))
    try:
        _capture(parent, parent.request())
    except BrokenPipeError:
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            parent.tell(Lost(f"capture failed: {type(error).__name__}: {error}", 0))


if __name__ == "__main__":
    main(int(sys.argv[1]))
