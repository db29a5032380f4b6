"""Where frames come from: a webcam, a network camera, a video file, a folder of images or a virtual camera.

    async with open_source("rtsp://user:password@camera/stream") as source:
        async for frame in source:
            ...

Live sources keep the newest frame and never end; files and folders keep every frame and end. Each frame
that is captured but not delivered is reported through an event, so that captured = delivered + skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from stream.errors import SourceError
from stream.redact import redact_url
from stream.sources.base import CaptureOptions, Source, SourceEvent
from stream.sources.files import shown
from stream.sources.live import LiveSource
from stream.sources.recorded import RecordedSource, open_recording
from stream.sources.virtual import is_virtual, open_virtual

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp"})
DEFAULTS = CaptureOptions()


def open_source(
    uri: str,
    options: CaptureOptions = DEFAULTS,
    on_event: Callable[[SourceEvent], None] | None = None,
) -> Source:
    """The source that a URI names: `0` (a webcam), `rtsp://…`, a video file, a folder of images, `demo`.

    A file is opened here and now, a camera at the first frame. `on_event` is called on the event loop, for
    whatever happens besides frames.

    Raises SourceError for what trying again cannot heal: an empty URI, an unknown scheme, a missing or
    unreadable file, a folder without images, a virtual camera with a bad setting.
    """
    if not uri:
        raise SourceError("the source is empty; name a webcam's number, a URL, a file, a folder, or demo")
    if is_virtual(uri):
        return open_virtual(uri, options, on_event)
    scheme, separator, _ = uri.partition("://")
    if uri.isdecimal() and uri.isascii():
        return LiveSource(f"webcam {int(uri)}", f"/dev/video{int(uri)}", options, on_event, is_device=True)
    if is_device(uri):
        return LiveSource(shown(Path(uri)), device_path(uri), options, on_event, is_device=True)
    if separator:
        if scheme.lower() not in LIVE_SCHEMES:
            raise SourceError(
                f"cannot capture from {redact_url(uri)}: unknown scheme {scheme!r}; "
                f"use one of {', '.join(sorted(LIVE_SCHEMES))}, a webcam's number, a file or a folder"
            )
        if any(map(str.isspace, uri)):
            raise SourceError(f"the {scheme} URL contains white space; write it as %20")
        return LiveSource(redact_url(uri), scheme.lower() + uri[len(scheme) :], options, on_event)
    return RecordedSource(uri, open_recording(Path(uri), options), options, on_event)


def is_device(uri: str) -> bool:
    """Whether a path names a camera: any device file, and what is not there yet below /dev."""
    path = Path(os.path.normpath(uri))
    try:
        if path.exists():
            return path.is_char_device()
    except OSError:  # for whoever opens it to say
        return False
    # But for the folder of shared memory, which holds files.
    return path.is_relative_to("/dev") and path.parts[2:3] != ("shm",)


def device_path(uri: str) -> str:
    """The path of a device as OpenCV may be given it. Raises SourceError."""
    path = str(Path(uri).absolute())  # not resolved: the link may lead elsewhere when the device comes back
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"the name of {shown(Path(uri))} is not UTF-8; make a link of another name"
        ) from None
    return path
