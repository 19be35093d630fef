"""Run the three nodes of ``configs/`` in the foreground: one process each, stopped together.

A node that ends by itself ends the others too, so that a broken start is seen at once.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
STOP_WAIT_S = 15.0


def main() -> int:
    """Start the nodes, wait for Ctrl-C or the first that ends, stop all."""
    signal.signal(signal.SIGTERM, _interrupt)
    configs = sorted((ROOT / "configs").glob("node*.toml"))
    # Sessions of their own, so that Ctrl-C reaches the nodes once, from here, and in order.
    nodes = [
        subprocess.Popen([sys.executable, str(ROOT / "node.py"), "--config", str(config)], start_new_session=True)
        for config in configs
    ]
    print(f"{len(nodes)} nodes: http://127.0.0.1:7101 to :7103, data in data/. Ctrl-C stops them.", file=sys.stderr)
    try:
        return _first_exit(nodes)
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(nodes)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _first_exit(nodes: list[subprocess.Popen[bytes]]) -> int:
    while True:
        for node in nodes:
            try:
                return node.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue


def _stop(nodes: list[subprocess.Popen[bytes]]) -> None:
    for node in nodes:
        if node.poll() is None:
            node.terminate()
    for node in nodes:
        try:
            node.wait(timeout=STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


if __name__ == "__main__":
    sys.exit(main())
