"""Print detections as they are published.

python consume_detections.py "ws://127.0.0.1:8765/v1/detections?types=detections"
"""

import asyncio
import sys

import aiohttp
import supervision


async def main(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as websocket:
        async for message in websocket:
            frame = message.json()
            print(frame["stream"], frame["sequence"], supervision.Detections.from_inference(frame))


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8765/v1/detections?types=detections"))
