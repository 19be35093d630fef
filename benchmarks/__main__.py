"""``python -m benchmarks WORKLOAD …``: see ``benchmarks/README.md``."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "src"))  # a checkout runs as it is
from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
