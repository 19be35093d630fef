"""So many of a thing, in words: what is said of numbers is said in one way, on every node."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return so many things: 1 task, 2 tasks."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
