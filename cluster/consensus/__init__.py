"""Floor 2: the replicated log. The only room that knows pysyncobj.

pysyncobj 0.3.17 is the election timer, the vote rules and the commit rule. As shipped it loses acknowledged writes, so
everything that decides about durability, authentication and outcomes is ours and wraps it from outside: ``engine``
replaces what is wrong, ``filter`` stands between the wire and the library, ``logstore`` and ``ballot`` are its disk,
``tcp`` is its network. ``port`` says what the floors above get and what they have to bring.

* The engine: ``replica`` drives ``engine`` on the loop; ``election`` and ``replication`` are its parts, ``link`` and ``filter``
  what it says and hears as ``messages``; ``library`` is the one import, ``names`` its private words.
* The disk: ``logstore`` over ``segment``, the ``ballot``, both on a ``disk`` (``flushing`` beside the loop); ``statefile`` is
  the state's SQLite files (``truncation``: whether their end is there), ``align`` makes both agree, ``damage`` refuses.
* The network: ``tcp`` decides which ``connection`` there is (``dialling``, ``listening``), after a ``handshake``, in frames
  (``framing``); ``refusals`` remembers who was not let in.

Invariants:

* nothing that depends on a log record or a vote leaves the node before that record or vote is durable;
* committed entries are never cut from a log; a request to do so stops the node;
* each index is applied at most once per life of the state, in order, under the term in which it was committed;
* damage is refused, never read as "does not exist";
* no byte from the network is unpickled, and none but the handshake's is read before its sender has proved the cluster secret.
"""
