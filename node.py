"""Start one node from a config: ``python node.py --config configs/node1.toml``."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "src"))  # a checkout runs as it is
from quorl.cluster.main import main

if __name__ == "__main__":
    sys.exit(main())
