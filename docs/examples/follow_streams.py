"""Follow cameras, not only detections: python follow_streams.py ws://127.0.0.1:8765/v1/detections

Prints when a camera comes, falls silent or goes, and which frames gave no detections.
"""

import asyncio
import json
import sys

import aiohttp


def line(message: dict) -> str | None:
    match message["type"]:
        case "stream":
            return f"{message['stream']} is {message['state']} {message['reason']}"
        case "gap":
            return f"{message['stream']} lacks {message['first']} to {message['last']}: {message['reasons']}"
        case "detections":
            return f"{message['stream']} #{message['frame']}: {len(message['predictions'])} objects"
    return None  # of a newer detector


async def main(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:  # a detector that is gone comes back
            try:
                async with session.ws_connect(url) as websocket:
                    async for received in websocket:
                        if received.type != aiohttp.WSMsgType.TEXT:
                            continue
                        message = json.loads(received.data)
                        if "dropped" in message:
                            print(f"{message['dropped']} messages were lost: this program is too slow")
                        if text := line(message):
                            print(text)
            except aiohttp.ClientError as error:
                print(f"no detector: {error}")
            await asyncio.sleep(1)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8765/v1/detections"))
