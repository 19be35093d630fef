"""Whether this node's disk has room for its log; a member without is there, and no help with what is new.

Nothing else would say so: it goes on hearing the leader, voting and answering, and shows what it had.
"""

from __future__ import annotations

from collections.abc import Callable

from quorl.cluster.consensus.logstore import ROOM_BYTES
from quorl.cluster.node.core import Logger
from quorl.cluster.protocol import limits

_MIB = 2**20
"""Bytes."""


class DiskRoom:
    """The room on one disk, which is said in the log when it ends and when it is there again."""

    def __init__(self, free_bytes: Callable[[int], int], refused: Callable[[], bool], log: Logger) -> None:
        """``free_bytes`` is that of the disk, which gives back what it keeps for later where less is free than asked for.

        ``refused`` says whether the log had too little room for what was to be written to it last. It wants some room to
        go on with besides, so that it may refuse where a little more than what is to be spared is free.
        """
        self._free_bytes = free_bytes
        self._refused = refused
        self._log = log
        self._was_full = False

    def full(self) -> bool:
        """Look whether the log takes nothing new."""
        spare_bytes = limits.DISK_SPARE_BYTES + (ROOM_BYTES if self._refused() else 0)
        free_bytes = self._free_bytes(spare_bytes + 1)
        full = free_bytes <= spare_bytes
        if full != self._was_full:
            self._was_full = full
            if full:
                advice = "Make room where data_dir is. This node takes nothing new into its log until then, and is no help if another fails."
                self._log.warning("disk_full", free_mib=free_bytes // _MIB, advice=advice)
            else:
                self._log.info("disk_has_room", free_mib=free_bytes // _MIB)
        return full
