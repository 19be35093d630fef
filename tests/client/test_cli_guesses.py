"""What a command guesses when a queue or a topic is not known as it was written."""

from __future__ import annotations

import json

import pytest

from quorl.client.cli.hints import HINTS
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from tests.client.commands import Quorl
from tests.client.desk import Desk, listed, queue_info, worker_info
from tests.client.stand_in import StandIn


@pytest.mark.parametrize(
    "line", ["show app-lgo", "rm app-lgo --yes", "rm app-lgo --if-empty", "size app-lgo", "tail app-lgo"]
)
def test_d15_a_topic_that_is_misspelt_is_guessed(quorl: Quorl, cluster: StandIn, line: str) -> None:
    quorl("topic", "create", "app-log")
    quorl("topic", "create", "orders")
    done = quorl("topic", *line.split())
    assert (done.exit_code, done.stdout) == (3, "")
    what, why, hint = done.stderr.splitlines()
    assert what.startswith("error  topic_not_found: ")
    assert why == 'why    There is no topic "app-lgo". Did you mean "app-log"?'
    creates = "quorl topic create" in hint
    assert creates is not line.startswith("rm"), "who wants to delete a topic does not want one"
    assert "quorl topic ls" in hint
    told = json.loads(quorl("topic", *line.split(), "--json").stderr)["error"]
    assert (told["code"], told["detail"]) == ("topic_not_found", why.removeprefix("why    "))


def test_d15_a_consumer_of_a_topic_that_is_misspelt(quorl: Quorl, cluster: StandIn) -> None:
    quorl("topic", "create", "app-log")
    for words in (["--register", "--all"], ["--consumer", "1"]):
        done = quorl("topic", "consume", "app-lgo", *words)
        assert (done.exit_code, '. Did you mean "app-log"?' in done.stderr) == (3, True)
    far = quorl("topic", "consume", "nothing-like-it", "--register").stderr.splitlines()
    assert (len(far), "Did you mean" in far[1], far[2]) == (3, False, f"try    {HINTS['topic_not_found']}")


@pytest.mark.parametrize("line", ["pause", "resume", "seal", "unseal", "purge --yes", "rm --yes", "rm", "show"])
def test_d15_a_queue_that_is_misspelt_is_guessed_also_by_who_changes_it(
    quorl: Quorl, cluster: StandIn, line: str
) -> None:
    quorl("queue", "set", "emails")
    word, *options = line.split()
    done = quorl("queue", word, "emials", *options)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        "error  queue_not_found: Queue not found",
        'why    There is no queue "emials". Did you mean "emails"?',
        f"try    {HINTS['queue_not_found']}",
    ]
    told = json.loads(quorl("queue", word, "emials", *options, "--json").stderr)["error"]
    assert told["detail"].endswith('Did you mean "emails"?')


def test_d15_of_several_queues_the_misspelt_one_is_guessed_and_the_others_are_paused(
    quorl: Quorl, cluster: StandIn
) -> None:
    quorl("queue", "set", "emails")
    done = quorl("queue", "pause", "emials", "emails")
    assert done.exit_code == 3
    assert done.stderr.count("Did you mean") == 1
    assert done.stderr.splitlines()[-1].startswith("paused: emails")


def test_d15_the_dead_of_a_queue_and_the_topic_of_a_producer_are_guessed(quorl: Quorl, cluster: StandIn) -> None:
    quorl("queue", "set", "emails")
    quorl("topic", "create", "app-log")
    assert '. Did you mean "emails"?' in quorl("dead", "retry", "-q", "emials", "--all", "-y").stderr
    assert '. Did you mean "app-log"?' in quorl("topic", "produce", "app-lgo", "--value", "x").stderr


def test_d15_whether_a_queue_without_workers_is_there_is_said(quorl: Quorl, cluster: StandIn) -> None:
    quorl("queue", "set", "emails")
    there = quorl("worker", "ls", "-q", "emails")
    assert there.stderr == "no worker serves emails: quorl worker run MODULE:APP -q emails starts one\n"
    alone = there.stderr.replace("emails", "emials")
    misspelt = quorl("worker", "ls", "-q", "emials")
    assert misspelt.stderr == f'{alone[:-1]}. There is no queue "emials". Did you mean "emails"?\n'
    watched = quorl("monitor", "--once", "-q", "emials")
    assert watched.stderr == 'no worker serves emials. There is no queue "emials". Did you mean "emails"?\n'
    assert quorl("monitor", "--once", "-q", "emails").stderr == "no worker serves emails\n"
    assert (there.exit_code, misspelt.exit_code) == (0, 0)
    cluster.answers["get_queue"] = lambda _: w.TooManyWorkers(detail="no")
    assert quorl("worker", "ls", "-q", "emials").stderr == alone
    assert quorl("worker", "ls").stderr == "no worker: quorl worker run MODULE:APP starts one\n"
    assert quorl("worker", "ls", "-q", "emials", "--json").stdout == "[]\n"


def no_workers(cluster: StandIn, queue: str) -> None:
    """The task waits in a queue that nobody serves; another one is served."""
    Desk(cluster, queue)
    listed(cluster, "list_queues", q.QueueList, queue_info(queue), queue_info("emails"))
    reasons = [k.Reason(code="no_workers", detail=f'No worker serves the queue "{queue}".', hint="")]
    cluster.answers["get_task_why"] = lambda _: k.TaskWhy(id="x", status="QUEUED", reasons=reasons)
    alive = worker_info(1, "w1")

    def workers(request: w.ListWorkers) -> w.WorkerList:
        return w.WorkerList(items=[alive] if request.queue in {None, "default"} else [], next=None)

    cluster.answers["list_workers"] = workers


def test_d15_a_queue_that_is_misspelt_is_guessed(quorl: Quorl, cluster: StandIn) -> None:
    no_workers(cluster, "defualt")
    warned = quorl("task", "submit", "-q", "defualt", "demo.add", "1", "2", "--id", "x")
    assert (warned.exit_code, warned.stdout) == (0, "x\n")
    assert warned.stderr.splitlines()[1:] == [
        'warn   no_workers: No worker serves the queue "defualt" - did you mean `default`?',
        "why    the task waits in its queue until that changes; demo.add is served on queue default",
        "try    Start one: quorl worker run MODULE:APP -q defualt",
    ]
    refused = quorl("task", "submit", "-q", "defualt", "demo.add", "1", "2", "--strict")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[1] == (
        "why    no worker is alive on queue defualt; demo.add is served on queue default - did you mean `default`?"
    )


def test_d15_a_queue_without_workers_may_be_another_one_that_exists(quorl: Quorl, cluster: StandIn) -> None:
    no_workers(cluster, "emials")
    warned = quorl("task", "submit", "-q", "emials", "send", "--id", "x")
    assert 'the queue "emials" - did you mean `emails`?' in warned.stderr
    assert "served" not in warned.stderr
    no_workers(cluster, "reports")
    warned = quorl("task", "submit", "-q", "reports", "send", "--id", "y")
    assert 'No worker serves the queue "reports".\n' in warned.stderr
    no_workers(cluster, "emials")
    cluster.answers["list_queues"] = lambda _: q.QueueNotFound(detail="no")
    assert "did you mean" not in quorl("task", "submit", "-q", "emials", "send", "--id", "z").stderr
