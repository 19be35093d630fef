"""The state as a node opens it, at its start and after a snapshot: whole, or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from quorl.cluster.consensus.damage import REMEDY, damaged, is_damage
from quorl.cluster.consensus.port import Damaged, OtherFormat, StateFiles
from quorl.cluster.machine.machine import Machine
from quorl.cluster.machine.schema import OtherVersion, StateError


def open_machine(states: StateFiles, log_begins_at: int) -> Machine:
    """The machine of the state that is there, or of a new one if the log has everything from the beginning."""
    if not states.exists() and log_begins_at > 1:
        raise Damaged(f"The state database is missing, and the log begins only at entry {log_begins_at}. {REMEDY}")
    connection = states.open()
    try:
        with refusing_damage():
            return Machine(connection, states.open_reader)
    except OtherVersion as error:
        raise OtherFormat(str(error)) from error
    except StateError as error:
        raise Damaged(f"{error} {REMEDY}") from error


@contextlib.contextmanager
def refusing_damage() -> Iterator[None]:
    """What is read of a state before anything else goes on is read, or the state is refused."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise damaged("state.db", None, f"not readable as a state ({error})") from error
