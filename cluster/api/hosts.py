"""Under which names a node that listens on loopback only may be called.

A web page of a stranger can let its own name resolve to 127.0.0.1; what the browser then sends comes from this machine and
looks like a page of the node itself. Only the ``Host`` header still tells the name. Off loopback nothing is checked: there a
node has names that it does not know.

Invariants: addresses of loopback, ``localhost`` and the configured addresses of the node are always taken, with any port;
so is a call without a ``Host``, which no browser sends.
"""

from __future__ import annotations

from quorl.cluster.node.config import is_loopback


def name_in(header: str) -> str:
    """The name or the address in a ``Host`` header, without the port."""
    bracketed, closing, _ = header.partition("]")
    name = bracketed.removeprefix("[") if closing else header.partition(":")[0]
    return name.strip().lower().removesuffix(".")


class Hosts:
    """The names of one node. ``listen`` is the host that it listens on, ``known`` the hosts that its config calls it by."""

    def __init__(self, listen: str, *known: str) -> None:
        self._known = frozenset(host.strip("[]").lower() for host in (listen, *known))
        self._any = not is_loopback(listen.strip("[]"))

    def take(self, header: str | None) -> bool:
        """Whether a call with this ``Host`` header is for the node."""
        if self._any or not header:
            return True
        name = name_in(header)
        return name in self._known or is_loopback(name)
