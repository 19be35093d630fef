"""Floor 0, the lobby: everything that server and client must agree on, and nothing that does anything.

Invariants: no clock, no randomness, no input or output; every number that bounds what comes from outside stands in
``limits``; every operation is one row in ``operations``. The client enters this room and no other.
"""
