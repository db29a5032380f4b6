"""Live capture in a process of its own, because a read from a hung camera cannot be interrupted.

`CaptureProcess` starts `capture_child.py` as a program and talks to it over a socket pair: the child sends small
messages, and the pictures lie in anonymous shared memory that it fills and the parent reads. Nothing has a name in the
system, so nothing is left behind, however either side dies. The child outlives a camera that it has lost, so that the
next attempt costs no start.

A fresh interpreter rather than `multiprocessing`: that would import the service's main module, torch and
all, into the child, and a fork would copy a process full of threads.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream.sources.capture_messages import (
    MESSAGE_BYTES,
    Captured,
    CaptureRequest,
    Damaged,
    Frozen,
    Lost,
    Message,
    Moving,
    Opened,
    Opening,
    PictureMemory,
    Release,
    Shared,
    Undecodable,
    dump,
    load,
)

_KILL_S = 1.0


class CaptureEnded(Exception):
    """The capture process has ended, or speaks nonsense; nothing more comes from it."""


class Picture:
    """A captured picture in shared memory. It keeps its slot until released."""

    def __init__(
        self, process: CaptureProcess, image: NDArray[np.uint8], message: Captured, memory: int
    ) -> None:
        self.captured_ns = message.captured_ns
        self.count, self.repeated = message.count, message.repeated
        self._process, self._image = process, image
        self._release = Release(memory, message.slot)

    def copy(self) -> NDArray[np.uint8]:
        """The image, (H, W, 3) BGR uint8, in memory of its own. May run on any thread."""
        return self._image.copy()

    def release(self) -> None:
        """Let the slot be filled again."""
        self._process.send(self._release)


Received: TypeAlias = Opening | Opened | Shared | Picture | Undecodable | Damaged | Frozen | Moving | Lost


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the service's settings, as its token: the child decodes what strangers send."""
    return {name: value for name, value in environment.items() if not name.startswith("SPLITCAST_")}


class CaptureProcess:
    """A capture child, seen from the service. Only `stop` waits; starting takes a few milliseconds."""

    def __init__(self) -> None:
        # At the end, so that nothing of ours is found in place of what the service itself imports.
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parents[2])]))
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    # -P: the working directory must not become the first place to import from.
                    [sys.executable, "-P", "-m", "stream.sources.capture_child", str(theirs.fileno())],
                    env={**_without_settings(os.environ), "PYTHONPATH": path},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # what C libraries say may contain the URL with its password
                )
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._memories = 0
        self._memory: PictureMemory | None = None

    def capture(self, request: CaptureRequest) -> None:
        """Have the camera opened and captured until it is lost. One at a time."""
        self.send(request)

    def fileno(self) -> int:
        """Readable when `receive` has something to say."""
        return self._socket.fileno()

    def receive(self) -> Received | None:
        """What the child says next; None if nothing waits.

        Raises CaptureEnded when the child has ended without a word.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise CaptureEnded("the capture process ended unexpectedly") from error
        if not data:
            raise CaptureEnded("the capture process ended unexpectedly")
        try:
            return self._understand(load(data), descriptors)
        # The child decodes what a stranger sends: believe it as little as the stranger.
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, OSError) as error:
            raise CaptureEnded("the capture process sent an unreadable message") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _understand(self, message: Message, descriptors: list[int]) -> Received:
        match message:
            case Shared(width, height):
                self._memory = PictureMemory(descriptors[0], width, height)
                self._memories += 1
            case Captured(slot):
                if self._memory is None:
                    raise LookupError("a picture before its memory")
                return Picture(self, self._memory.pictures[slot], message, self._memories)
        return message

    def send(self, message: CaptureRequest | Release) -> None:
        """Send without waiting. A child that is gone or hung gets nothing, which `receive` will tell."""
        with contextlib.suppress(OSError):
            self._socket.send(dump(message))

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
