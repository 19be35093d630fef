"""Examples that run, on real nodes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's own directory."""
