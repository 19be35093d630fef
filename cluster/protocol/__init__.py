"""Floor 0, the lobby: everything that server and client must agree on, and nothing that does anything.

Invariants: no clock, no randomness, no input or output; every number that bounds what comes from outside stands in
``limits``; every operation is one row in ``operations``. The client enters this room and no other.

* The words: ``grammar`` is what a message and an operation are. Messages stand by what they are about: ``topics`` (``appends``:
  to several), ``queues``, ``submitting``, ``tasks`` (``batches``: many at once), ``leases`` (``together``: several), ``workers``,
  ``overview`` and ``system``. ``entry`` is how commands stand in the log, ``problems`` what can be wrong with a call.
* The table is ``operations``; ``pages`` are the paths beside it, ``founding`` those of the first queue. Made from both:
  ``routes``, ``plans``, and ``openapi`` (``openapi_rules``, ``examples``).
* The wire: ``wire`` turns messages into HTTP and back, ``channel`` into frames. ``strictjson`` reads what strangers sent,
  ``wording`` says what is wrong with a field, ``tracing`` is what goes along.
* Small contracts: ``placement`` of keys, ``moment`` for calendar time, ``crc``, ``packing`` of large appends.
"""
