"""Floor 2: the replicated log. The only room that knows pysyncobj.

pysyncobj 0.3.17 is the election timer, the vote rules and the commit rule. As shipped it loses acknowledged writes, so
everything that decides about durability, authentication and outcomes is ours and wraps it from outside: ``engine``
replaces what is wrong, ``filter`` stands between the wire and the library, ``logstore`` and ``ballot`` are its disk,
``tcp`` is its network. ``port`` is what the floors above may use.

Invariants:

* nothing that depends on a log record or a vote leaves the node before that record or vote is durable;
* committed entries are never cut from a log; a request to do so stops the node;
* each index is applied at most once per life of the state, in order, under the term in which it was committed;
* damage is refused, never read as "does not exist";
* no byte from the network is unpickled, and none is read before its sender has proved the cluster secret.
"""
