"""Speed and memory of skgate beside its peers; run by asv, and written to doc/ by tables.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))  # whose networks are used
