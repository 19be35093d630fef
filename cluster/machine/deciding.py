"""The one table of commands: which function of the machine applies which."""

from __future__ import annotations

from typing import assert_never

from quorl.cluster.machine import (
    claiming,
    queues,
    settling,
    submitting,
    task_batches,
    tasks,
    together,
    topics,
    workers,
)
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.appends import AppendBatches
from quorl.cluster.protocol.batches import ChangeTasks
from quorl.cluster.protocol.entry import AnyCommand
from quorl.cluster.protocol.grammar import Rejection, Reply
from quorl.cluster.protocol.submitting import SubmitBatch
from quorl.cluster.protocol.system import Found, Founded


def decide(state: State, command: AnyCommand) -> Reply | Rejection:  # one table
    """Apply one command."""
    match command:
        case c.Settle():
            return settling.settle(state, command)
        case c.Claim():
            return claiming.claim(state, command)
        case SubmitBatch():
            return submitting.submit(state, command)
        case c.Complete():
            return settling.complete(state, command)
        case t.AppendBatch():
            return topics.append(state, command)
        case AppendBatches():
            return topics.append_all(state, command)
        case t.Consume():
            return topics.consume(state, command)
        case g.ReportBatch():
            return together.report(state, command)
        case g.ClaimBatch():
            return together.claim(state, command)
        case c.FailTask():
            return settling.fail(state, command)
        case c.ReleaseTask():
            return settling.release(state, command)
        case c.Hold():
            return settling.hold(state, command)
        case ChangeTasks():
            return task_batches.change(state, command)
        case k.CancelTask():
            return tasks.cancel(state, command)
        case k.RetryTask():
            return tasks.retry(state, command)
        case k.ForgetTask():
            return tasks.forget(state, command)
        case w.EnrolWorker():
            return workers.enrol(state, command)
        case w.RemoveWorker():
            return workers.remove(state, command)
        case w.QuietWorker():
            return workers.quiet(state, command)
        case w.TerminateWorker():
            return workers.terminate(state, command)
        case q.SetQueue():
            return queues.put(state, command)
        case q.PatchQueue():
            return queues.patch(state, command)
        case q.DeleteQueue():
            return queues.delete(state, command)
        case q.PurgeQueue():
            return queues.purge(state, command)
        case t.CreateTopic():
            return topics.create_topic(state, command)
        case t.DeleteTopic():
            return topics.delete_topic(state, command)
        case t.RegisterProducer():
            return topics.register_producer(state, command)
        case t.RegisterConsumer():
            return topics.register_consumer(state, command)
        case Found():
            if state.header.cluster_id is None:
                state.header.cluster_id = command.cluster_id
            return Founded(cluster_id=state.header.cluster_id)
        case _ as unknown:
            assert_never(unknown)
