"""Floor 3: the living process. Everything that happens on one node, without its sockets.

``node`` puts the parts together (``setting`` is what it is given, ``opening`` how it opens its state); read it first.

* Calls: ``gateway`` answers them through ``core``, which is this node and the others; one call is a ``visit``. ``writing``,
  ``reading``, ``claiming``, ``syncing`` and ``transferring`` are the ways that it may go, ``forwarding`` leads to the leader
  and ``internal`` is what nodes ask each other. ``sealing`` makes commands, ``founding`` speaks the first queue's words,
  ``guessing`` and ``outage`` say what may help, ``polls`` and ``deadlines`` end what lasts too long.
* While it leads: ``leadership`` has the ``committer``, the one way into the log (``weighing``, ``patience``), ``parking``
  for claims (``sight``), ``signs`` of life (which ``gathering`` brings from every node) and the ``timekeeper``.
* At every node: ``applying`` applies entries, ``watch`` wakes who waits for ``subjects``, ``upkeep`` keeps the log short and
  fills a copy that fell behind, ``members`` is who is there, ``diskroom`` whether the disk is full.
* Being watched: ``looking`` joins ``recorder``, ``lately``, ``overview`` and ``live``; ``meters`` counts.
* Before: ``config`` and ``configfile``.

Invariants: an answer that says "done" was applied here under an entry that a majority holds durably; whatever was not
proposed is told apart from what may have happened; nothing here reads a clock, a die, a disk or a socket but through
the ports that it was given, so that the whole room runs in a simulation.
"""
