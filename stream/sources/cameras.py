"""Cameras as the capture process reads them: a video device by OpenCV, a URL by FFmpeg."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from stream.redact import redact_url
from stream.sources.capture_messages import CaptureRequest
from stream.tasks.backoff import Failure

_KNOCK_S = 1.0  # for a host that was unreachable to accept a connection
_KNOCK_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}

# A playlist or a redirection must not lead to this machine's files.
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,rtmp,rtmps,rtmpt,rtmpts,http,https,httpproxy,tls,tcp,udp,crypto"


class CannotOpen(Exception):
    """The camera does not open; the message says why."""

    def __init__(self, reason: str, failure: Failure) -> None:
        super().__init__(reason)
        self.failure = failure


class LiveCamera(Protocol):
    """A camera that is open."""

    @property
    def captured_ns(self) -> int:
        """When the newest picture came."""

    @property
    def damaged(self) -> int:
        """Pieces of coded data since the first picture, of which nothing or only part could be decoded."""

    @property
    def ending(self) -> str:
        """Why nothing more comes, once `grab` has said so."""

    def grab(self) -> bool:
        """Wait for the next picture; False where none comes any more."""

    def image(self) -> NDArray[np.uint8] | None:
        """The newest picture, (H, W, 3) BGR, in memory that is not written to again; None if it is unreadable."""

    def close(self) -> None:
        """Leave the camera."""


class Webcam:
    """A video device, read by OpenCV."""

    damaged, ending = 0, "the device gives no more pictures"

    def __init__(self, request: CaptureRequest) -> None:
        os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
        import cv2

        self._capture = cv2.VideoCapture(request.target, cv2.CAP_V4L2, [cv2.CAP_PROP_BUFFERSIZE, 1])
        if not self._capture.isOpened():
            raise CannotOpen(_why_closed(Path(request.target)), Failure.NOT_READY)

    def grab(self) -> bool:
        grabbed: bool = self._capture.grab()
        self.captured_ns = time.monotonic_ns()
        return grabbed

    def image(self) -> NDArray[np.uint8] | None:
        decoded, image = self._capture.retrieve()
        return np.asarray(image, np.uint8) if decoded else None

    def close(self) -> None:
        self._capture.release()


def _why_closed(device: Path) -> str:
    if not device.exists():
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be read and written by this user"
    return f"{device} is no camera, or busy"


class NetworkCamera:
    """A URL, read by FFmpeg."""

    def __init__(self, request: CaptureRequest) -> None:
        import av

        from stream.sources.video import NoVideo, VideoReader, complaint

        if request.knock:
            knock(request.target)
        options = {"protocol_whitelist": _PROTOCOLS}
        if request.target.startswith("rtsp"):
            # FFmpeg would look at the stream for some three seconds before the first picture.
            options |= {
                "rtsp_transport": request.rtsp_transport,
                "analyzeduration": "200000",
                "probesize": "65536",
            }
        started_s = time.monotonic()
        with av.logging.Capture() as complaints:
            try:
                container = av.open(request.target, options=options, timeout=(request.open_timeout_s, None))
                self._reader = VideoReader(container)
            except NoVideo as error:
                raise CannotOpen(str(error), Failure.NOT_READY) from None
            except av.error.FFmpegError as error:
                said = complaint(complaints) or error.strerror or ""
                reason, failure = (
                    explain(request, time.monotonic() - started_s, said),
                    _failure_of(error, said),
                )
                if failure is Failure.DENIED:
                    reason = f"the camera does not take the user name or password: {reason}"
                raise CannotOpen(reason, failure) from None
        self._frame: Any = None
        self._undecoded: int | None = None  # pieces before the first picture, which wait for a keyframe

    @property
    def captured_ns(self) -> int:
        return self._reader.received_ns

    @property
    def damaged(self) -> int:
        return 0 if self._undecoded is None else self._reader.damaged - self._undecoded

    @property
    def ending(self) -> str:
        return (
            f"the stream ended: {self._reader.broken_off}" if self._reader.broken_off else "the stream ended"
        )

    def grab(self) -> bool:
        self._frame = self._reader.read()
        if self._undecoded is None:
            self._undecoded = self._reader.damaged
        return self._frame is not None

    def image(self) -> NDArray[np.uint8] | None:
        return self._reader.image(self._frame)

    def close(self) -> None:
        self._reader.close()


def knock(url: str) -> None:
    """See whether the host accepts connections. Raises CannotOpen."""
    try:
        # As FFmpeg reads it: the host ends at the first / ? or #, after the last @.
        address = urlsplit(url)
        if address.scheme not in _KNOCK_PORTS or not address.hostname:
            return
        port = address.port or _KNOCK_PORTS[address.scheme]
    except ValueError:  # it is for FFmpeg to refuse
        return
    try:
        socket.create_connection((address.hostname, port), _KNOCK_S).close()
    except ConnectionError as error:
        raise CannotOpen(f"it cannot be opened: {error.strerror}", Failure.NOT_READY) from None
    except TimeoutError:
        raise CannotOpen(f"no answer for {_KNOCK_S:.1f} s", Failure.UNREACHABLE) from None
    except socket.gaierror:
        raise CannotOpen("it cannot be opened: the name does not resolve", Failure.UNREACHABLE) from None
    except OSError as error:
        raise CannotOpen(f"it cannot be opened: {error.strerror}", Failure.UNREACHABLE) from None


def _failure_of(error: Exception, said: str) -> Failure:
    """What an error of FFmpeg says of the camera. A name that does not resolve is but an input/output error."""
    import av

    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return Failure.DENIED
    if isinstance(error, ConnectionError):
        return Failure.NOT_READY
    if isinstance(error, TimeoutError | av.error.ExitError) or "Failed to resolve" in said:
        return Failure.UNREACHABLE
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN):
        return Failure.UNREACHABLE
    return Failure.NOT_READY


def explain(request: CaptureRequest, took_s: float, complaint: str) -> str:
    """Why a URL did not open, for people: by the clock, or by what FFmpeg said last."""
    if took_s >= request.open_timeout_s:
        return f"no answer for {took_s:.1f} s"
    userinfo = request.target.partition("://")[2].rpartition("@")[0]
    if set(userinfo) & set("/?#@"):
        # FFmpeg ends the host at the first / ? or #, so what it names as the host may be the password.
        return "it cannot be opened; in a user name or password, write / ? # @ as %2F %3F %23 %40"
    complaint = re.sub(r"^(\[[^\]]*\]\s*)+", "", complaint).strip()
    # Hidden before it is cut: half a URL does not tell where its password ends.
    complaint = redact_url(complaint)[:200]
    return f"it cannot be opened: {complaint}" if complaint else "it cannot be opened"
