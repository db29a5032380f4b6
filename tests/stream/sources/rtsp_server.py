"""An RTSP camera for tests, run by the system's Python, which has GStreamer's RTSP server.

    /usr/bin/python3 rtsp_server.py PORT [--auth USER:PASSWORD] [--size WxH] [--fps N] [--sound]

Serves H.264, or only sound, at rtsp://127.0.0.1:PORT/stream and prints "ready". Each picture carries its number, from
0, as 16 vertical bars, most significant bit first: white is one. SIGUSR1 lets the picture stand still, and move again.
"""

from __future__ import annotations

import argparse
import itertools
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS = 16


class Camera(GstRtspServer.RTSPMediaFactory):
    """One pipeline, shared by all clients; the numbering goes on when the last client leaves."""

    def __init__(self, width: int, height: int, fps: int) -> None:
        super().__init__()
        self.width, self.height, self.fps = width, height, fps
        self.number = 0
        self.step = 1
        self.set_shared(True)
        self.set_launch(
            "( appsrc name=source is-live=true format=time do-timestamp=false "
            f"caps=video/x-raw,format=GRAY8,width={width},height={height},framerate={fps}/1 "
            f"! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast "
            f"threads=1 key-int-max={fps} ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"
        )
        self.connect("media-configure", self.configure)

    def configure(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("source")
        indices = itertools.count()

        def push() -> bool:
            buffer = Gst.Buffer.new_wrapped(self.picture())
            # Real timestamps: without them the client cannot tell when a picture is due.
            buffer.pts = buffer.dts = next(indices) * Gst.SECOND // self.fps
            buffer.duration = Gst.SECOND // self.fps
            self.number += self.step
            return source.emit("push-buffer", buffer) == Gst.FlowReturn.OK

        timer = GLib.timeout_add(1000 // self.fps, push)
        media.connect("unprepared", lambda _media: GLib.source_remove(timer) and None)

    def stand_still(self) -> bool:
        """Show the same picture again and again; or move again."""
        self.step = 1 - self.step
        return True

    def picture(self) -> bytes:
        bars = [255 if self.number >> bit & 1 else 0 for bit in reversed(range(BITS))]
        return bytes(bars[column * BITS // self.width] for column in range(self.width)) * self.height


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--auth")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--sound", action="store_true")
    arguments = parser.parse_args()
    Gst.init(None)
    width, height = map(int, arguments.size.split("x"))
    camera = Camera(width, height, arguments.fps)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)
    if arguments.auth:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*arguments.auth.split(":", 1)), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        camera.set_permissions(permissions)
    served = camera
    if arguments.sound:
        served = GstRtspServer.RTSPMediaFactory()
        served.set_launch("( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )")
    server.get_mount_points().add_factory("/stream", served)
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGUSR1, camera.stand_still)
    assert server.attach(None), "the port is taken"
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
