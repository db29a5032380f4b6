"""The attacker as a process of its own: `python -m tests.attacks.besiege NAME`, with the target on standard input.

Prints a line once it attacks, and when it is terminated what was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.attacks import attacks
from tests.attacks.attacker import Target
from tests.attacks.attacks import ATTACKS, TRIES

ROUND_S = 0.1
STAY_S = 5.0  # so that several hundred connections are open at a time
SOURCES = 8  # of loopback's addresses
NICE = 10  # elsewhere it would have processors of its own


async def besiege(name: str, target: Target) -> None:
    """Attack until this process is told to stop, and then say what was answered."""
    stopping, answers = asyncio.Event(), Counter[str]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    attacks.STAY_S = STAY_S
    print("attacking", flush=True)
    rounds: set[asyncio.Task[Counter[str]]] = set()
    number = 0
    while not stopping.is_set():
        source = f"127.0.0.{2 + number % SOURCES}"
        rounds.add(asyncio.create_task(ATTACKS[name].round(replace(target, source=source))))
        number += 1
        await asyncio.sleep(ROUND_S)
        for done in [task for task in rounds if task.done()]:
            rounds.discard(done)
            answers += done.result()
    for task in rounds:
        task.cancel()
    await asyncio.gather(*rounds, return_exceptions=True)
    print(json.dumps({"tries": TRIES * number, "answers": answers}))


def main() -> None:
    os.nice(NICE)
    said = json.loads(sys.stdin.readline())
    asyncio.run(besiege(sys.argv[1], Target(**said | {"ca": Path(said["ca"])})))


if __name__ == "__main__":
    main()
