"""What commands do alike: read all pages of a list, ask before harm is done, do one thing to several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quorl.client.cli.common import Exit, Settings, exit_code, tell

if TYPE_CHECKING:
    from quorl.client.sync import Client

T = TypeVar("T")


def pages(client: Client, request: Any, count: int | None = None) -> Iterator[Any]:
    """Yield the items of a list, page by page, up to so many."""
    import msgspec

    from quorl.cluster.protocol import limits

    left = count
    while left is None or left > 0:
        limit = limits.PAGE_ITEMS_MAX if left is None else min(left, limits.PAGE_ITEMS_MAX)
        page = client.call(msgspec.structs.replace(request, limit=limit))
        yield from page.items
        if page.next is None:
            return
        left = None if left is None else left - len(page.items)
        request = msgspec.structs.replace(request, cursor=page.next)


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless the answer is given already; without anybody to ask nothing is done."""
    if yes:
        return
    if not can_ask():
        from quorl.client.cli.misuse import Unanswered

        raise Unanswered(question)
    click.confirm(question, abort=True, err=True)


def each(settings: Settings, things: Iterable[T], do: Callable[[T], None]) -> None:
    """Do one thing to all; what is refused is told, the others are done, and the exit code is that of the first refusal."""
    from quorl.client.errors import Rejected

    code = Exit.OK
    for thing in things:
        try:
            do(thing)
        except Rejected as error:
            tell(error, settings)
            code = code or exit_code(error)
    if code:
        click.get_current_context().exit(code)
