"""Making one outgoing TCP connection: resolve the name anew each time, try its addresses, say plainly what failed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from quorl.shielding import shield


class Unreachable(Exception):
    """No address of the peer took the connection. ``refused``: every one of them refused, so nobody listens there."""

    def __init__(self, reason: str, *, refused: bool) -> None:
        super().__init__(reason)
        self.refused = refused


class Resolver:
    """Names to addresses, off the loop. Nothing is remembered: a restarted container has another address."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Task[list[str]]] = {}

    async def resolve(self, host: str) -> list[str]:
        """Return the addresses of ``host``, which may be one itself; raises ``OSError`` or ``UnicodeError``."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        # One question per name at a time: a resolver that hangs must not take up a thread for each dial.
        question = self._asked.get(host)
        if question is None:
            question = self._asked[host] = asyncio.get_running_loop().create_task(self._ask(host))
            question.add_done_callback(lambda task: self._answered(host, task))
        return await shield(question)

    async def close(self) -> None:
        """Forget the questions that nobody has answered yet."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, host: str) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def _answered(self, host: str, task: asyncio.Task[list[str]]) -> None:
        del self._asked[host]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; the error is then nobody's


async def connect(
    resolver: Resolver, host: str, port: int, timeout_s: float, protocol: Callable[[], asyncio.BaseProtocol]
) -> None:
    """Connect ``protocol`` to the first address that accepts; raises ``Unreachable``."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await resolver.resolve(host)
    except (OSError, UnicodeError) as error:
        raise Unreachable(_reason(error, f"the name {host}", timeout_s), refused=False) from error
    reasons: list[str] = []
    refused = True
    for address in addresses:
        try:
            async with asyncio.timeout(timeout_s):
                await loop.create_connection(protocol, address, port)
        except OSError as error:
            refused = refused and isinstance(error, ConnectionRefusedError)
            reasons.append(_reason(error, f"{address}:{port}", timeout_s))
        else:
            return
    raise Unreachable("; ".join(reasons), refused=refused)


def _reason(error: Exception, what: str, timeout_s: float) -> str:
    match error:
        case ConnectionRefusedError():
            return f"{what}: connection refused"
        case TimeoutError():
            return f"{what}: no answer within {timeout_s:g} s"
        case socket.gaierror():
            return f"{what} does not resolve: {error.strerror}"
        case OSError() if error.strerror:
            return f"{what}: {error.strerror}"
        case _:
            return f"{what}: {error}"
