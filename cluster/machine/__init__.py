"""Floor 1: the machine, the deterministic heart. It turns committed entries into state and outcomes.

Purpose: every node applies the same entries in the same order and must come to the same rows, the same outcomes and the
same digest, years later too. The machine knows no network, no clock and no log; it is handed a SQLite connection, a Raft
index, a term and the bytes of an entry.

Where things are:

* The door is ``machine`` (``apply``, ``query``, ``render``). ``state`` is the connection and what is remembered of it in
  Python, with ``books`` for queues and workers; ``schema`` is the tables.
* Commands: ``deciding`` says which function applies which. ``topics`` (and ``appending``), ``queues``, ``submitting`` (and
  ``sameness``), ``claiming`` (and ``arriving``), ``settling``, ``tasks`` and ``workers`` decide; ``together`` and
  ``task_batches`` do to several what those do to one. ``moves`` is every step from one state of a task to another,
  ``waiting`` writes the rows of steps that many take, ``causes`` groups what tasks died of, ``ownership`` is who serves what,
  ``ids`` what the leader's dice decide. ``receipts`` remembers first ``outcomes`` for repeats.
* What happens by itself: ``due`` does what has come to be so, ``graves`` clears away what deleted topics have left,
  ``samples`` and ``leaders`` keep history. ``events`` tell whoever watches.
* Reads, on any connection: ``queries`` answers them, with ``reading`` for messages (``shelf``: those that were decoded
  lately), ``pages`` for lists, and modules by what is asked about: ``queue_queries``; ``task_queries``, ``task_lists`` and
  ``task_why``, over ``task_rows``; ``dead_queries``, ``worker_queries``, ``history_queries``, ``overview_queries`` and
  ``metric_queries``. ``outlook`` is what a leader looks at before it proposes. ``guessing`` names what was perhaps meant,
  ``counted`` puts numbers into words.
* Whole states: ``digest`` and ``dump`` compare and move them, ``check`` states the invariants over rows.

Invariants:

* ``apply`` is total. A refusal is a value. What goes wrong in the same way on every node spoils one command, which leaves
  nothing behind and is answered with ``command_failed``; an entry that cannot be read is counted and skipped. Only what
  may differ between nodes (a broken disk, no memory) escapes, after the whole entry was rolled back.
* An entry's rows, its sequence, Raft index and term are written in one transaction, which it may share with those before
  and behind it. So the state is always that after some whole entry, and says after which.
* What Python remembers of the rows never runs ahead of them: it is dropped or restored whenever anything is rolled back.
* Nothing but the entry and the rows decides: no clock, no randomness, no order of sets; texts that a Python or library
  version might word differently are kept out of outcomes.
* Time only moves forward: both the cluster's and the calendar's reading are the greatest seen so far.
* Offsets of a partition are dense from 0, in one row per append and partition, and are never changed. Ids of producers
  and consumers are dense from 1 per topic. Ids of topics are never used twice.
* Tokens of leases grow over the whole cluster, and of those of one task only the last counts. Ids of workers are lives.
* An entry takes effect in this order: signs of life, what is due at its moment (a bounded number), commands.
* Everything remembered for repeats is bounded in count and age, and each command clears away at most a few.
* No entry takes long because of how much is stored: a topic too is deleted little by little, and nothing of it can be
  read meanwhile.

Who may call: the node's loop, one thread at a time. Reads with ``query`` may run on other connections in other threads.
"""
