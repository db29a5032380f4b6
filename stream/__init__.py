"""The split network, the session and the frame sources. Model code (torch) and socket code (asyncio) never meet."""

import os

# On import ultralytics looks up hosts on the internet, to know whether it may talk to them. It need not.
os.environ.setdefault("YOLO_OFFLINE", "true")
