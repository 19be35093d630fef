"""The clients of tasks in one seed: who there is, how they come to rest, and what must be true then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol.tasks import FINAL
from tests.simulation.task_checks import TaskChecks
from tests.simulation.task_history import Submission, TaskHistory
from tests.simulation.task_judge import judge_tasks, stored_tasks, unfinished
from tests.simulation.task_worker import Badge, employ
from tests.simulation.task_workload import PARTED, PLAIN, look, look_at, meddle, new_task, set_up, submit
from tests.simulation.workload import Actor

if TYPE_CHECKING:
    from tests.simulation.world import World

FINISH_S = 60.0
"""After healing, honest workers bring every task to its end within this."""
WOKEN_S = 10.0


class TaskLoad:
    """One seed's submitters, workers, meddlers and waiters."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.history = TaskHistory()
        self.checks = world.task_checks = TaskChecks(world, self.history)
        world.hang_ups = True

    def begin(self) -> None:
        """Make the queues, and let everybody begin."""
        world, history = self._world, self.history
        made = world.actor(set_up(Actor(world, "foreman")))
        world.run(30.0, made.done)
        dice = Actor(world, "personnel").dice
        badges = [
            Badge("a", (PLAIN, PARTED), dead_after_ms=dice.choice([1500, 2500])),
            Badge("b", (PARTED, PLAIN), dead_after_ms=dice.choice([1500, 4000])),
            Badge("c", (PARTED,), dead_after_ms=2000),
            Badge("d", (PLAIN, PARTED), standby=True, dead_after_ms=2000),
        ]
        for badge in badges[: dice.choice([2, 3, 4, 4])]:
            employ(world, history, badge)
        for number in range(2):
            world.send_off(submit(Actor(world, f"s{number}"), history))
            world.send_off(look(Actor(world, f"l{number}"), history))
        world.send_off(meddle(Actor(world, "m"), history))

    def calm_down(self, run: Callable[[Callable[[], bool], float], bool]) -> None:
        """No more mischief: whoever waits is woken, and everything comes to its end."""
        world, history = self._world, self.history
        for process in world.processes.values():
            process.clock.wall_error_ms = 0  # or what is to run at a time of the calendar may never run
        history.calm = True
        run(lambda: len(world.nodes()) == len(world.names), FINISH_S)
        run(lambda: False, 1.0)
        self._check_waiters(run)
        if not run(lambda: not self.checks.shadows.active, FINISH_S):
            left = unfinished(self.checks)
            world.problem(f"UNFINISHED: {len(left)} tasks have not come to their end: {left[:5]}")

    def _check_waiters(self, run: Callable[[Callable[[], bool], float], bool]) -> None:
        """Who waits for a result at any node is told as soon as there is one."""
        world, history = self._world, self.history
        actor = Actor(world, "last")
        task = new_task(actor.dice, history, "last", now=world.clock.now, plain=True)
        serial = int(str(task.id).partition(".")[2])
        history.submissions.append(Submission(PLAIN, [task], [serial], world.clock.now))

        async def wait_at(name: str) -> None:
            waiter = Actor(world, f"waiter at {name}")
            waiter.route.nodes = (name,)
            while await look_at(waiter, history, str(task.id), 40.0) not in FINAL:
                await asyncio.sleep(0.2)

        submitted = world.actor(actor.surely(b.Submit(queue=PLAIN, tasks=[task])))
        if not run(submitted.done, FINISH_S):
            world.problem("NOT-LIVE: no submit after healing")
        waits = [world.actor(wait_at(name)) for name in world.names]
        finished = run(lambda: str(task.id) not in self.checks.shadows.active, FINISH_S)
        if finished and not run(lambda: all(wait.done() for wait in waits), WOKEN_S):
            world.problem(f"ASLEEP: {sum(not wait.done() for wait in waits)} of {len(waits)} waiters were not woken")

    def judge(self) -> list[str]:
        """The verdict, given what the nodes hold in the end."""
        return judge_tasks(self.checks, {node.name: stored_tasks(node.committed) for node in self._world.nodes()})

    def tally(self) -> dict[str, int]:
        """How much of everything there was."""
        ends = Counter(shadow.state.lower() for shadow in self.checks.shadows.tasks.values())
        poisoned = sum(shadow.reason == "POISON" for shadow in self.checks.shadows.tasks.values())
        return self.history.tally | dict(ends) | {"poison": poisoned}
