"""The codes with which a node's process ends, for those who restart nodes. It imports nothing: ``--check`` needs it, too."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How the process ends."""

    STOPPED = 0
    """As asked."""
    CONFIG = 2
    """The arguments or the config are wrong, and nothing was started."""
    MACHINE = 71
    """The machine refused something (a port in use, a full disk), or the node stopped itself: a restart may help."""
    DAMAGED = 78
    """The data directory is damaged, another process's or another version's: a restart cannot help."""
