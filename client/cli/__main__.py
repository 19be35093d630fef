"""``python -m quorl.client.cli``: the ``quorl`` command without an installed script."""

from __future__ import annotations

import sys

from quorl.client.cli import main

sys.exit(main())
