"""Takes the README's picture of the live page, with a real detector and a real camera on this machine.

python -m tests.services.screenshot docs/images/live.png --seconds 60
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from pathlib import Path

from playwright.async_api import expect

from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.commands.loopback import local_detector
from services.detector.settings import DetectorSettings
from stream.tasks.background import run_with_background
from tests.services.browser import open_browser

ANSWER_S = 60.0  # for the first frame on a busy machine, and for a class to come into view


async def take(options: Namespace) -> None:
    """Write the picture once the stream has run for a while."""
    width, height = (int(side) for side in options.viewport.split("x"))
    ours = {"model": options.model, "log_format": "text", "log_level": "warning"}
    async with local_detector(DetectorSettings.load({"port": 0, **ours})) as url, open_browser() as browser:
        settings = {"source": options.source, "stream": options.stream, "codec": options.codec}
        settings |= {"preview": options.preview, "loop": options.loop, "realtime": options.loop}
        camera = Camera(CameraSettings.load({"detector": url, "metrics_port": 0, **settings, **ours}))

        async def look() -> None:
            page = await browser.new_page(
                viewport={"width": width, "height": height},
                device_scale_factor=options.scale,
                color_scheme=options.scheme,
            )
            await page.goto(url.replace("ws", "http", 1))
            await expect(page.locator(".tile b").first).to_contain_text(".", timeout=ANSWER_S * 1000)
            await asyncio.sleep(options.seconds)
            await expect(page.locator(".classes")).to_contain_text(options.showing, timeout=ANSWER_S * 1000)
            await page.screenshot(path=options.out)
            camera.stop()

        await run_with_background(camera.run(), look())


def parser() -> ArgumentParser:
    parser = ArgumentParser("screenshot", description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--model", default="demo", help="network of both ends")
    parser.add_argument("--source", default="demo:scene=bus,size=640x360", help="what the camera sees")
    parser.add_argument("--loop", action="store_true", help="the source is a file: play it again and again")
    parser.add_argument("--codec", default=CameraSettings.model_fields["codec"].default, help="of the camera")
    parser.add_argument("--stream", default="street", help="name of the stream")
    parser.add_argument("--seconds", type=float, default=60.0, help="history to wait for")
    parser.add_argument("--showing", default="", help="class to wait for then", metavar="CLASS")
    parser.add_argument("--viewport", default="1280x1000", help="WIDTHxHEIGHT in CSS pixels")
    parser.add_argument("--scale", type=float, default=1.0, help="device pixels for a CSS pixel")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light", help="colors")
    parser.add_argument("--preview", action="store_true", help="let the camera send pixels")
    return parser


if __name__ == "__main__":
    asyncio.run(take(parser().parse_args()))
