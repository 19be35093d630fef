"""The tasks of the scene: quick ones, slow ones, and such that fail in a way of their own."""

from __future__ import annotations

import threading
from typing import Any

from quorl import App

app = App()


@app.task(name="shop.charge", queue="payments")
def charge(order: int, amount: float, currency: str = "EUR") -> str:
    """Charge an order to the customer's card.

    A negative amount is refused; `currency` is an ISO 4217 code.
    """
    if amount < 0:
        raise ValueError(f"order {order}: cannot charge {amount} {currency}")
    return f"{order}: {amount:.2f} {currency}"


@app.task(name="shop.send_email", queue="emails")
def send_email(to: str, subject: str = "Your order", *, urgent: bool = False) -> dict[str, Any]:
    """Send one mail."""
    if "@" not in to:
        raise LookupError(f"no mailbox for {to!r}")
    return {"to": to, "subject": subject, "urgent": urgent}


@app.task(name="shop.import_rows", queue="imports")
def import_rows(source: str, rows: int = 100) -> int:
    """Import rows from a file; 20 of them take a second."""
    threading.Event().wait(rows / 20)  # the work
    return rows


@app.task(name="shop.audit", queue="payments")
def audit(number: int) -> dict[str, Any]:
    """Return what a browser's own numbers cannot hold."""
    return {"number": number, "next": number + 1, "share": 1.0}
