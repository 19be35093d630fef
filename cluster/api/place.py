"""Whether a node could keep its data where its config says: tried here and now, and nothing is left there.

What only another user may do is no trouble but a caution: a check is often made by another one than the node runs as.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from quorl.cluster.consensus.ballot import NAME as BALLOT_NAME
from quorl.cluster.consensus.ballot import owner_of
from quorl.cluster.consensus.port import Damaged, OtherFormat
from quorl.cluster.protocol import limits


class Trouble(NamedTuple):
    """What is wrong with a place, and what to do about it."""

    what: str
    advice: str
    sure: bool = True
    """Whether no node could start there, whoever runs it."""
    damaged: bool = False
    """Whether it is what lies there that keeps a node from starting."""


def trouble_with(place: Path, node: str) -> Trouble | None:
    """What would keep a node of this name from having its data there; None: nothing that can be seen."""
    try:
        nearest = next(path for path in (place, *place.parents) if path.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
        free_bytes = shutil.disk_usage(nearest).free
    except OSError as error:
        return _refused(place, error)
    if free_bytes <= limits.DISK_SPARE_BYTES:
        what = f"only {free_bytes // 2**20} MiB are free there: with 64 MiB or less a node takes nothing new"
        return Trouble(f"[node] data_dir = {place}: {what}", "Make room.", sure=False)
    return _foreign(place, node)


def _refused(place: Path, error: OSError) -> Trouble:
    why = (error.strerror or str(error)).lower()
    what = f"[node] data_dir = {place} cannot be written: {why}"
    if error.errno == errno.EACCES:
        return Trouble(what, "The user as whom the node runs must be able to.", sure=False)
    if error.errno == errno.ENOSPC:
        return Trouble(what, "Make room.")
    return Trouble(what, "Set it to a folder of its own on a local disk.")


def _foreign(place: Path, node: str) -> Trouble | None:
    with contextlib.suppress(OSError):  # of what is not there, or not this user's to read, nothing is known
        try:
            owner = owner_of((place / BALLOT_NAME).read_bytes())
        except (Damaged, OtherFormat) as error:
            return Trouble(f"[node] data_dir = {place}: {error}", "", damaged=True)
        if owner not in {None, node}:
            what = f"[node] data_dir = {place} is the data directory of {owner}, and this node is {node}"
            return Trouble(what, "Put each directory to its own node, or give this one a new folder.", damaged=True)
    return None
