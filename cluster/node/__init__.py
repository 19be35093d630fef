"""Floor 3: the living process. Everything that happens on one node, without its sockets.

``node`` puts the parts together; ``gateway`` answers calls; ``committer`` is the one way into the log; ``timekeeper``
stamps entries; ``watch`` wakes who waits; ``upkeep`` keeps the log short and fills a copy that fell behind.

Invariants: an answer that says "done" was applied here under an entry that a majority holds durably; whatever was not
proposed is told apart from what may have happened; nothing here reads a clock, a die, a disk or a socket but through
the ports that it was given, so that the whole room runs in a simulation.
"""
