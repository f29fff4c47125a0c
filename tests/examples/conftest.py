"""The cascade's scripts import one another by name, as they do when they are run."""

from __future__ import annotations

import sys
from pathlib import Path

CASCADE = str(Path(__file__).resolve().parents[2] / "examples" / "cascade")
if CASCADE not in sys.path:
    sys.path.insert(0, CASCADE)
