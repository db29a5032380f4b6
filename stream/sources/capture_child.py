"""The capture process: `python -m stream.sources.capture_child DESCRIPTOR`, which `capture.py` starts."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time

from stream.sources.cameras import CannotOpen, LiveCamera, NetworkCamera, Webcam
from stream.sources.capture_messages import (
    CLOSE_S,
    MESSAGE_BYTES,
    SLOTS,
    Captured,
    CaptureRequest,
    Damaged,
    Lost,
    Message,
    Opened,
    Opening,
    PictureMemory,
    Release,
    Shared,
    Undecodable,
    dump,
    load,
)
from stream.sources.stillness import Stillness
from stream.tasks.backoff import Failure


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
        self._requests: queue.SimpleQueue[CaptureRequest | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def request(self) -> CaptureRequest | None:
        """What to capture next, once the service says; None where it is gone."""
        return self._requests.get()

    def share(self, width: int, height: int) -> PictureMemory:
        """New memory, all of whose slots are free."""
        descriptor = os.memfd_create("splitcast-capture")
        try:
            os.ftruncate(descriptor, SLOTS * height * width * 3)
            memory = PictureMemory(descriptor, width, height)
            self.slots.renew()
            socket.send_fds(self._channel, [dump(Shared(width, height))], [descriptor])
        finally:
            os.close(descriptor)
        return memory

    def tell(self, message: Message) -> None:
        self._channel.send(dump(message))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._channel.recv(MESSAGE_BYTES):
                match load(data):
                    case Release() as release:
                        self.slots.give_back(release)
                    case CaptureRequest() as request:
                        self._requests.put(request)
        self.gone.set()
        self._requests.put(None)
        # The main thread sees this after its read and leaves the camera politely, unless the read hangs.
        time.sleep(CLOSE_S)
        os._exit(0)


def _capture(parent: _Parent, request: CaptureRequest) -> None:
    """Capture until the camera or the parent is gone."""
    parent.tell(Opening())
    try:
        camera: LiveCamera = Webcam(request) if request.is_device else NetworkCamera(request)
    except CannotOpen as error:
        parent.tell(Lost(str(error), error.failure.value))
        return
    parent.tell(Opened())
    with contextlib.closing(camera):
        _capture_from(camera, parent)


def _capture_from(camera: LiveCamera, parent: _Parent) -> None:
    memory: PictureMemory | None = None
    stillness = Stillness()
    count = damaged = 0
    while not parent.gone.is_set():
        grabbed = camera.grab()
        if damaged < camera.damaged:
            parent.tell(Damaged(camera.damaged - damaged))
            damaged = camera.damaged
        if not grabbed:
            parent.tell(Lost(camera.ending, Failure.NOT_READY.value, count))
            break
        count += 1
        slot = parent.slots.take() if memory else None
        if memory and slot is None:
            continue  # the parent is busy and will learn from the count that it missed this one
        image = camera.image()
        if image is None:
            if slot is not None:
                parent.slots.put_back(slot)
            parent.tell(Undecodable(count))
            continue
        if memory is None or image.shape != memory.pictures.shape[1:]:
            memory = parent.share(width=image.shape[1], height=image.shape[0])
            slot = parent.slots.take()
        assert slot is not None
        memory.pictures[slot] = image
        change = stillness.look(image, camera.captured_ns)
        parent.tell(Captured(slot, camera.captured_ns, count, stillness.repeated))
        if change is not None:
            parent.tell(change)


def main(descriptor: int) -> None:
    """Run the child on its end of the socket pair."""
    # The terminal's Ctrl-C and a service manager's stop reach the whole group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = _Parent(socket.socket(fileno=descriptor))
    while (request := parent.request()) is not None:
        try:
            _capture(parent, request)
        except BrokenPipeError:
            return
        except Exception as error:
            with contextlib.suppress(OSError):
                reason = f"capture failed: {type(error).__name__}: {error}"
                parent.tell(Lost(reason, Failure.NOT_READY.value))


if __name__ == "__main__":
    main(int(sys.argv[1]))
