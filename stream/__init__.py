"""The split network, the session between its halves, and the sources of frames.

A name is loaded when it is first used, so that a program without a network never waits for an engine, and one without
a camera never for OpenCV. Model code and socket code (asyncio) never meet in here; a program joins them:

    >>> import numpy as np
    >>> from stream import Letterbox, canvas_for, detect, find_weights, open_network
    >>> image = np.full((360, 640, 3), 114, np.uint8)  # a frame: (H, W, 3), BGR

    The camera's half, on a canvas that the network can have:

    >>> network = open_network(find_weights("demo"))
    >>> letterbox = Letterbox((360, 640), canvas_for(320, 360, 640, network.stride))
    >>> head = network.head("4.m", letterbox.canvas)
    >>> tensors = head(letterbox.apply(image))
    >>> [(spec.name, spec.shape) for spec in head.layout]
    [('4.cv2', (32, 24, 40)), ('4.m', (32, 24, 40))]

    The detector's half, from the tensors that cross to boxes in the frame:

    >>> tail = network.tail("4.m")
    >>> (logits,) = tail([tensors])
    >>> detections = detect(logits, network.levels, letterbox)
    >>> len(detections), detections.boxes.shape
    (0, (0, 4))

`codec` makes bytes of the tensors; `open_source` gives frames; `CameraSession` and `DetectorSession` are the two ends
of the protocol without a socket. Every error is a StreamError, see `stream.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from codec.lazy import lazy_names

if TYPE_CHECKING:
    from stream.canvas import canvas_for
    from stream.detections import Detections
    from stream.errors import (
        BadCertificate,
        CheckpointError,
        ConnectionLost,
        InvalidMessage,
        InvalidSize,
        SessionError,
        SourceError,
        StreamError,
        TlsFailed,
        UnknownSplitPoint,
        WeightsError,
        WrongTensors,
    )
    from stream.frame import Frame
    from stream.letterbox import Letterbox
    from stream.network.boxes import detect
    from stream.network.download import find_weights
    from stream.network.engine import Head, RunnableNetwork, Tail, open_network
    from stream.session.ack import Ack
    from stream.session.camera import CameraSession
    from stream.session.close_codes import CloseCode
    from stream.session.detector import DetectorSession
    from stream.session.messages import Hello, KeyframeRequest, Preview, Reject, Report, Welcome
    from stream.sources.base import CaptureOptions, Source, SourceEvent
    from stream.sources.opening import open_source
    from stream.transport.tls import ClientTls
    from stream.transport.websocket import Link, connect

__all__ = [
    "Ack",
    "BadCertificate",
    "CameraSession",
    "CaptureOptions",
    "CheckpointError",
    "ClientTls",
    "CloseCode",
    "ConnectionLost",
    "Detections",
    "DetectorSession",
    "Frame",
    "Head",
    "Hello",
    "InvalidMessage",
    "InvalidSize",
    "KeyframeRequest",
    "Letterbox",
    "Link",
    "Preview",
    "Reject",
    "Report",
    "RunnableNetwork",
    "SessionError",
    "Source",
    "SourceError",
    "SourceEvent",
    "StreamError",
    "Tail",
    "TlsFailed",
    "UnknownSplitPoint",
    "WeightsError",
    "Welcome",
    "WrongTensors",
    "canvas_for",
    "connect",
    "detect",
    "find_weights",
    "open_network",
    "open_source",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "stream.canvas": "canvas_for",
        "stream.detections": "Detections",
        "stream.errors": "BadCertificate CheckpointError ConnectionLost InvalidMessage InvalidSize SessionError "
        "SourceError StreamError TlsFailed UnknownSplitPoint WeightsError WrongTensors",
        "stream.frame": "Frame",
        "stream.letterbox": "Letterbox",
        "stream.network.boxes": "detect",
        "stream.network.download": "find_weights",
        "stream.network.engine": "Head RunnableNetwork Tail open_network",
        "stream.session.camera": "CameraSession",
        "stream.session.close_codes": "CloseCode",
        "stream.session.detector": "DetectorSession",
        "stream.session.ack": "Ack",
        "stream.session.messages": "Hello KeyframeRequest Preview Reject Report Welcome",
        "stream.sources.base": "CaptureOptions Source SourceEvent",
        "stream.sources.opening": "open_source",
        "stream.transport.tls": "ClientTls",
        "stream.transport.websocket": "Link connect",
    },
)
