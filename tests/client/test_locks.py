"""An exception that a signal handler raises at any step of ``with`` leaves no lock behind that nobody gives back.

As in ``test_interruptions`` a profile function raises where handlers run, at each of these places in turn.
"""

from __future__ import annotations

import itertools
import sys
import threading
from types import FrameType

from quorl.client import locks
from quorl.client.locks import Lock

PATIENCE_S = 10.0
WATCHED = __file__, locks.__file__


class Interrupted(Exception):
    """What the handler raises."""


def entered(lock: Lock, place: int) -> bool:
    """Take the lock and give it back, interrupted at a place; returns whether it came so far."""
    counter = itertools.count()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        ours = event in ("call", "c_return") and frame.f_code.co_filename in WATCHED
        if ours and next(counter) == place:
            sys.setprofile(None)
            raise Interrupted

    try:
        sys.setprofile(look)
        with lock, lock:
            len("")
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


def is_free(lock: Lock) -> bool:
    """Whether another thread gets it."""
    got: list[bool] = []

    def take() -> None:
        got.append(lock.acquire(timeout=PATIENCE_S))
        lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got == [True]


def test_a_lock_is_free_wherever_its_block_was_interrupted() -> None:
    for place in itertools.count():
        lock = Lock()
        came = entered(lock, place)
        assert is_free(lock), f"held for ever, at place {place}"
        if not came:
            break
    assert place > 4


def test_a_lock_keeps_others_out_and_takes_its_own_thread_again() -> None:
    lock = Lock()
    with lock, lock:
        taken: list[bool] = []
        thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        assert taken == [False]
    assert is_free(lock)
