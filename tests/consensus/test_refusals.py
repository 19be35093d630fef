"""The memory of refusals: bounded, recent, and not a flood of log lines."""

from __future__ import annotations

from typing_extensions import override

from quorl.cluster.consensus.port import Clock
from quorl.cluster.consensus.refusals import KEPT_MAX, RECENT_S, REPEAT_S, Reason, Refusals

WRONG, OTHERWISE = Reason("secret", "is wrong"), Reason("told secret", "is otherwise wrong")


class HandClock(Clock):
    now = 100.0

    @override
    def monotonic(self) -> float:
        return self.now

    @override
    def wall_ms(self) -> int:
        return 0


def test_a_refusal_is_news_once_and_again_when_the_reason_changes_or_after_a_while() -> None:
    clock = HandClock()
    refusals = Refusals(clock)
    assert refusals.note("n2", WRONG)
    for _ in range(5):
        clock.now += REPEAT_S / 6
        assert not refusals.note("n2", WRONG)
    clock.now += REPEAT_S / 6
    assert refusals.note("n2", WRONG)
    assert refusals.note("n2", OTHERWISE)
    assert refusals.recent() == {"n2": OTHERWISE}


def test_who_stopped_trying_or_got_in_is_no_longer_refused() -> None:
    clock = HandClock()
    refusals = Refusals(clock)
    refusals.note("n2", WRONG)
    refusals.note("n3", WRONG)
    refusals.forget("n3")
    refusals.forget("n4")
    assert refusals.recent() == {"n2": WRONG}
    clock.now += RECENT_S
    assert refusals.recent() == {}


def test_many_addresses_do_not_fill_the_memory() -> None:
    refusals = Refusals(HandClock())
    refusals.note("n2", WRONG)
    for number in range(10 * KEPT_MAX):
        refusals.note(f"10.0.0.{number}", Reason("member", "is a stranger"))
        refusals.note("n2", WRONG)
    assert len(refusals.recent()) == KEPT_MAX
    assert "n2" in refusals.recent()
