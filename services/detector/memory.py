"""How much memory a detector may use, and how much of it is promised to cameras: docs/operations.md has the formula."""

from __future__ import annotations

from collections.abc import Sequence

from codec.layout import Layout, raw_bytes
from services.detector.settings import DetectorSettings
from services.errors import SettingsError
from stream.errors import SessionError
from stream.session.close_codes import CloseCode

MIB = 2**20
# What a decoder holds, in units of the tensors of a frame: its reference frame, and what it works on. Another frame is
# decoded and waits; with `--feedback` one more does.
DECODER_FRAMES, WAITING_FRAMES = 2, 1
# A packet that comes is held twice for a moment: in the pieces that came, and as a whole.
PACKETS_RECEIVED = 2
# What the network's last layers hold at a time, in units of the largest tensors that cross any split point: a layer's
# input and output, a copy in the order that the processor likes, and the frame's own tensors.
TAIL_FRAMES = 4
# What a step map takes, in units of that: all that the pass back needs of the pass forth.
STEP_MAP_TAILS = 6
CONNECTION_BYTES = (
    512 * 1024
)  # a camera's texts, preview, history and statistics; buffers of socket and WebSocket
# What asyncio's TLS holds besides, of each connection: a buffer of 256 KiB, and what came and is not decrypted.
TLS_BYTES = 512 * 1024
BOX_BYTES, MESSAGE_BYTES = 160, 1024  # of a detection in JSON, and of a message without any
PROFILES = 8  # that cameras have sent


def camera_bytes(settings: DetectorSettings, max_packet_bytes: int, tensor_bytes: int) -> int:
    """What a camera can make the detector hold: packets of so many bytes, frames of so many as float32."""
    message_bytes = MESSAGE_BYTES + BOX_BYTES * settings.max_detections
    return (
        CONNECTION_BYTES
        + (TLS_BYTES if settings.tls_cert else 0)
        + (settings.window + PACKETS_RECEIVED) * max_packet_bytes
        + (DECODER_FRAMES + WAITING_FRAMES + (1 if settings.feedback else 0)) * tensor_bytes
        + settings.subscriber_queue * message_bytes
    )


def tail_bytes(layouts: Sequence[Layout]) -> int:
    """What a frame holds in the network's last layers; `layouts` are what crosses each split point."""
    return TAIL_FRAMES * max(map(raw_bytes, layouts))


def _tls_bytes(settings: DetectorSettings) -> int:
    """What TLS holds of consumers, browsers and scrapes."""
    return TLS_BYTES * (settings.max_subscribers + settings.max_http) if settings.tls_cert else 0


class MemoryBudget:
    """Promises memory to cameras, as much as there is."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self._promised: dict[object, int] = {}
        self._for_cameras = 0
        self._released = False

    def open(self, process_bytes: int, tail_bytes: int) -> None:
        """Settle what is left for cameras.

        `process_bytes` is what the process holds with its network, `tail_bytes` what a frame takes of its last layers.
        Raises SettingsError where not even one camera with the largest packets and tensors has room.
        """
        settings = self._settings
        parts = {
            "the process with its network": process_bytes,
            f"{settings.tail_threads} frames at a time (--tails, --max-side)": settings.tail_threads
            * tail_bytes,
            "a step map (--feedback)": STEP_MAP_TAILS * tail_bytes if settings.feedback else 0,
            "calibration profiles (--max-profile-mib)": PROFILES * settings.max_profile_mib * MIB,
            "TLS of others than cameras (--max-subscribers, --max-http)": _tls_bytes(settings),
            "a camera (--window, --max-packet-mib, --max-tensors-mib)": camera_bytes(
                settings, settings.max_packet_mib * MIB, settings.max_tensors_mib * MIB
            ),
        }
        *fixed, camera = parts.values()
        self._for_cameras = settings.max_memory * MIB - sum(fixed)
        if self._for_cameras < camera:
            needed = ", ".join(f"{size / MIB:.0f} MiB for {what}" for what, size in parts.items() if size)
            raise SettingsError(
                f"--max-memory: {settings.max_memory} MiB is too little; it takes {needed}. "
                "Give it more, or lower what a flag in brackets allows"
            )

    @property
    def promised_bytes(self) -> int:
        """To all cameras."""
        return sum(self._promised.values())

    def reserve(self, owner: object, size_bytes: int) -> None:
        """Promise so much to a camera, until `release`. Raises SessionError where that is not left."""
        left = self._for_cameras - self.promised_bytes
        if size_bytes > left:
            raise SessionError(
                CloseCode.TOO_MANY_STREAMS,
                f"no memory is left for another camera: this one may need {size_bytes / MIB:.0f} MiB, "
                f"{max(0, left) / MIB:.0f} are free (--max-memory)",
            )
        self._promised[owner] = size_bytes

    def release(self, owner: object) -> None:
        """Take back what a camera was promised, if anything."""
        if self._promised.pop(owner, None) is not None:
            self._released = True

    def take_released(self) -> bool:
        """Whether a camera has left since the last call."""
        released, self._released = self._released, False
        return released
