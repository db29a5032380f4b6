"""Where things lie in a checkout, and beside it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DEPLOY = ROOT / "deploy"
SHARED = Path(os.environ.get("SPLITCAST_SHARED", ROOT.parent / "shared"))
