"""The invariants over rows, as statements that find whatever breaks them. For tests and for doubt; it reads everything."""

from __future__ import annotations

import sqlite3

import msgspec

from quorl.cluster.machine import ids
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.packing import unpack

_ALIVE = "topic_id NOT IN (SELECT topic_id FROM graves)"
"""Of a topic that was deleted any part may be gone already."""

_LOWER = ["scheduled", "queued", "processing", "retry", "success", "failed", "cancelled", "expired"]
_COUNTED = ", ".join(f"ifnull(sum(t.state = {number}), 0)" for number in range(len(_LOWER)))
_OF_TASKS = ("payloads", "results", "progress", "attempts", "marks")

_TASK_RULES = (
    (
        "a queue's counts are not those of its tasks",
        (
            f"SELECT q.queue_id FROM queues q WHERE ({', '.join(_LOWER)}) IS NOT (SELECT {_COUNTED} FROM tasks t"
            " WHERE t.queue_id = q.queue_id) OR q.submitted < (SELECT count(*) FROM tasks t WHERE t.queue_id = q.queue_id)"
            " ORDER BY 1"
        ),
    ),
    (
        "a task has no queue, or one that was deleted while it is not finished",
        (
            "SELECT t.ordinal FROM tasks t LEFT JOIN queues q USING (queue_id)"
            " WHERE q.queue_id IS NULL OR (q.deleted = 1 AND t.state < 4) ORDER BY 1"
        ),
    ),
    ("two tasks have one id", f"SELECT {ids.of('t')} FROM tasks t GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"),
    (
        "a task's partition is none of its queue's",
        (
            "SELECT t.ordinal FROM tasks t JOIN queues q USING (queue_id) WHERE"
            " NOT ((q.partitions = 0 AND t.partition = -1) OR t.partition BETWEEN 0 AND q.partitions - 1) ORDER BY 1"
        ),
    ),
    (
        "an id is not below the next one",
        (
            "SELECT 'task', ordinal FROM tasks, machine WHERE ordinal >= next_ordinal"
            " UNION ALL SELECT 'queue', queue_id FROM queues, machine WHERE queue_id >= next_queue_id"
            " UNION ALL SELECT 'token', token FROM tasks, machine WHERE token >= next_token"
            " UNION ALL SELECT 'worker', worker_id FROM workers, machine WHERE worker_id >= next_worker_id ORDER BY 1, 2"
        ),
    ),
    (
        "two leases have one token",
        (
            "SELECT token FROM (SELECT token FROM tasks WHERE state IN (2, 4) UNION ALL SELECT token FROM attempts)"
            " GROUP BY token HAVING count(*) > 1 ORDER BY 1"
        ),
    ),
    (
        "a task's alarm is not what its state says",
        (
            "SELECT ordinal FROM tasks WHERE NOT CASE"
            " WHEN state = 0 THEN (due_ms IS NULL) != (calendar_ms IS NULL)"
            " AND alarm_ms IS min(ifnull(due_ms, expiry_ms), ifnull(expiry_ms, due_ms))"
            " WHEN calendar_ms IS NOT NULL THEN 0"
            " WHEN state = 3 THEN due_ms IS NOT NULL AND alarm_ms = due_ms AND expiry_ms IS NULL"
            " WHEN due_ms IS NOT NULL THEN 0"
            " WHEN state = 1 THEN alarm_ms IS expiry_ms"
            " WHEN state = 2 THEN expiry_ms IS NULL AND (alarm_ms IS NULL) = (timeout_ms IS NULL)"
            " ELSE expiry_ms IS NULL END ORDER BY 1"
        ),
    ),
    (
        "a task's end is not what its state says",
        (
            "SELECT ordinal FROM tasks WHERE (state > 3) != (finished_ms IS NOT NULL) OR (state > 4) != (reason IS NOT NULL)"
            " OR (cancel = 1 AND state != 2) ORDER BY 1"
        ),
    ),
    (
        "a task that waits is over its limits",
        "SELECT ordinal FROM tasks WHERE state < 4 AND (attempts >= max_attempts OR lost >= max_lost) ORDER BY 1",
    ),
    (
        "a task has not the body that its row says",
        (
            "SELECT t.ordinal FROM tasks t LEFT JOIN payloads p USING (ordinal)"
            " WHERE t.size_bytes IS NOT length(p.body) ORDER BY 1"
        ),
    ),
    (
        "a row belongs to no task",
        " UNION ALL ".join(
            f"SELECT '{table}', ordinal FROM {table} WHERE ordinal NOT IN (SELECT ordinal FROM tasks)"
            for table in _OF_TASKS
        )
        + " ORDER BY 1, 2",
    ),
    (
        "a result is that of no SUCCESS",
        "SELECT ordinal FROM results JOIN tasks USING (ordinal) WHERE state != 4 ORDER BY 1",
    ),
    (
        "a task's leases are not those that it has had",
        (
            "SELECT t.ordinal FROM tasks t WHERE min(t.leases - (t.state IN (2, 4)), 1000) !="
            " (SELECT count(*) FROM attempts a WHERE a.ordinal = t.ordinal AND a.number <= t.leases) ORDER BY 1"
        ),
    ),
)
_KEPT = "bucket > (SELECT max(bucket) FROM ticks) - 720"
_SUMMED = ("submitted", "started", "succeeded", "failed_attempts", "lost", "failed", "appended")
_HISTORY_RULES = (
    (
        "a queue was sampled with more than it ever had",
        (
            "SELECT queue_id FROM queues WHERE json_extract(sampled, '$[0]') > submitted"
            " OR json_extract(sampled, '$[1]') > total_started ORDER BY 1"
        ),
    ),
    (
        "a topic was sampled with more than it ever had",
        (
            "SELECT t.topic_id FROM topics t JOIN ends USING (topic_id) GROUP BY 1 HAVING sum(next_offset) < t.sampled"
            " ORDER BY 1"
        ),
    ),
    (
        "more has ended than was ever started",
        "SELECT queue_id FROM queues WHERE total_started < total_succeeded + total_failed_attempts + total_lost ORDER BY 1",
    ),
    (
        "a sample is of a time that was not noted",
        (
            f"SELECT bucket FROM samples, machine WHERE bucket NOT IN (SELECT bucket FROM ticks) AND {_KEPT}"
            " AND bucket != now_ms / 10000 ORDER BY 1"
        ),
    ),
    ("more times are noted than are kept", f"SELECT bucket FROM ticks WHERE NOT {_KEPT} ORDER BY 1"),
    (
        "the samples of queues and topics do not add up to those of the cluster",
        (
            f"SELECT bucket FROM samples WHERE {_KEPT} GROUP BY bucket HAVING "
            + " OR ".join(f"sum(iif(kind, {column}, -{column}))" for column in _SUMMED)
            + " ORDER BY 1"
        ),
    ),
)
_WORKER_RULES = (
    (
        "a worker's leases are not those of its tasks",
        (
            "SELECT worker_id FROM workers w WHERE leases !="
            " (SELECT count(*) FROM tasks t WHERE t.state = 2 AND t.worker_id = w.worker_id) ORDER BY 1"
        ),
    ),
    (
        "a lease is nobody's",
        (
            "SELECT ordinal FROM tasks WHERE state = 2"
            " AND (token IS NULL OR worker_id IS NULL OR worker_id NOT IN (SELECT worker_id FROM workers)) ORDER BY 1"
        ),
    ),
    (
        "two workers that are alive have one name",
        "SELECT name FROM workers WHERE status = 0 GROUP BY name HAVING count(*) > 1 ORDER BY 1",
    ),
    (
        "a worker has no profile, or not the heartbeats that it says",
        (
            "SELECT worker_id FROM workers w LEFT JOIN profiles p USING (worker_id) WHERE p.worker_id IS NULL OR"
            " min(w.beats, 120) != (SELECT count(*) FROM beats b WHERE b.worker_id = w.worker_id) ORDER BY 1"
        ),
    ),
    (
        "a row belongs to no worker",
        " UNION ALL ".join(
            f"SELECT '{table}', worker_id FROM {table} WHERE worker_id IS NOT NULL AND worker_id NOT IN (SELECT worker_id FROM workers)"
            for table in ("profiles", "worker_queues", "beats", "owners")
        )
        + " ORDER BY 1, 2",
    ),
    (
        "a worker counts for a queue as it should not",
        (
            "SELECT s.queue, worker_id FROM worker_queues s JOIN workers w USING (worker_id) WHERE s.standby != w.standby"
            " OR NOT CASE s.alive WHEN 1 THEN w.status = 0 AND w.quiet = 0 AND (s.standby = 1 OR s.active = 1)"
            " ELSE w.status = 1 AND w.filled = 0 AND w.standby = 0 AND s.active = 0 END ORDER BY 1, 2"
        ),
    ),
    (
        "a worker that should count for its queues counts for none",
        (
            "SELECT worker_id FROM workers WHERE ((status = 0 AND quiet = 0) OR (status = 1 AND filled = 0))"
            " != (worker_id IN (SELECT worker_id FROM worker_queues)) ORDER BY 1"
        ),
    ),
    (
        "not as many stand-bys are active as should be",
        (
            "SELECT queue FROM worker_queues GROUP BY queue HAVING sum(standby AND active) != min(sum(standby AND alive),"
            " max(sum(NOT alive), sum(alive AND NOT standby) = 0)) ORDER BY 1"
        ),
    ),
    (
        "a queue has not an owner for each of its partitions, or one that is not active",
        (
            "SELECT q.queue_id FROM queues q WHERE q.partitions * (1 - q.deleted) !="
            " (SELECT count(*) FROM owners o WHERE o.queue_id = q.queue_id AND o.partition BETWEEN 0 AND q.partitions - 1)"
            " OR EXISTS (SELECT 1 FROM owners o WHERE o.queue_id = q.queue_id AND NOT CASE WHEN o.worker_id IS NULL"
            " THEN NOT EXISTS (SELECT 1 FROM worker_queues s WHERE s.queue = q.name AND s.active)"
            " ELSE EXISTS (SELECT 1 FROM worker_queues s WHERE s.queue = q.name AND s.active AND s.worker_id = o.worker_id)"
            " END) ORDER BY 1"
        ),
    ),
    (
        "partitions are not evenly shared",
        (
            "SELECT queue_id FROM (SELECT q.queue_id, (SELECT count(*) FROM owners o WHERE o.queue_id = q.queue_id"
            " AND o.worker_id = s.worker_id) AS share FROM queues q JOIN worker_queues s ON s.queue = q.name AND s.active"
            " WHERE q.partitions > 0 AND q.deleted = 0) GROUP BY queue_id HAVING max(share) - min(share) > 1 ORDER BY 1"
        ),
    ),
)

_RULES = (
    (
        "a topic has not the partitions that it says",
        (
            "SELECT t.name FROM topics t WHERE t.partitions != (SELECT count(*) FROM partitions p WHERE"
            " p.topic_id = t.topic_id AND p.partition >= 0 AND p.partition < t.partitions) ORDER BY t.name"
        ),
    ),
    (
        "a topic's next id is not one more than its ids, which are dense from 1",
        (
            "SELECT t.name FROM topics t WHERE"
            " t.next_producer_id - 1 != (SELECT count(*) FROM producers p WHERE p.topic_id = t.topic_id)"
            " OR t.next_producer_id - 1 != (SELECT ifnull(max(producer_id), 0) FROM producers p WHERE p.topic_id = t.topic_id)"
            " OR t.next_consumer_id - 1 != (SELECT count(*) FROM consumers c WHERE c.topic_id = t.topic_id)"
            " OR t.next_consumer_id - 1 != (SELECT ifnull(max(consumer_id), 0) FROM consumers c WHERE c.topic_id = t.topic_id)"
            " ORDER BY t.name"
        ),
    ),
    (
        "a topic's turn is none of its partitions",
        "SELECT name FROM topics WHERE next_partition NOT BETWEEN 0 AND partitions - 1 ORDER BY name",
    ),
    (
        "a topic id is not below the next one",
        (
            "SELECT topic_id FROM (SELECT topic_id FROM topics UNION ALL SELECT topic_id FROM graves), machine"
            " WHERE topic_id >= next_topic_id ORDER BY topic_id"
        ),
    ),
    (
        "a topic has a grave",
        "SELECT name FROM topics WHERE topic_id IN (SELECT topic_id FROM graves) ORDER BY name",
    ),
    (
        "offsets are not dense",
        (
            "SELECT topic_id, partition, base_offset FROM (SELECT *, lag(base_offset + count, 1, 0) OVER"
            " (PARTITION BY topic_id, partition ORDER BY base_offset) AS expected FROM batches"
            f" WHERE {_ALIVE}) WHERE base_offset != expected OR count < 1 ORDER BY 1, 2, 3"
        ),
    ),
    (
        "creation times decrease",
        (
            "SELECT topic_id, partition, base_offset FROM (SELECT *, lag(created_ms, 1, 0) OVER"
            " (PARTITION BY topic_id, partition ORDER BY base_offset) AS earlier FROM batches)"
            " WHERE created_ms < earlier ORDER BY 1, 2, 3"
        ),
    ),
    (
        "not as many messages are counted as there are",
        (
            "SELECT messages FROM machine WHERE messages != (SELECT ifnull(sum(count), 0) FROM batches"
            f" WHERE {_ALIVE}) ORDER BY 1"
        ),
    ),
    (
        "a cursor is outside of its partition",
        (
            "SELECT k.topic_id, k.consumer_id, k.partition FROM cursors k LEFT JOIN ends p USING (topic_id, partition)"
            f" WHERE {_ALIVE} AND (p.next_offset IS NULL OR NOT (0 <= k.start_offset"
            " AND k.start_offset <= k.next_offset AND k.next_offset <= p.next_offset)) ORDER BY 1, 2, 3"
        ),
    ),
    (
        "a consumer has not one cursor per partition, or its turn is none of them",
        (
            "SELECT c.topic_id, c.consumer_id FROM consumers c LEFT JOIN topics t USING (topic_id)"
            f" WHERE {_ALIVE} AND (t.partitions IS NOT"
            " (SELECT count(*) FROM cursors k WHERE k.topic_id = c.topic_id AND k.consumer_id = c.consumer_id)"
            " OR c.turn NOT BETWEEN 0 AND t.partitions - 1) ORDER BY 1, 2"
        ),
    ),
    (
        "a row belongs to no topic",
        (
            "SELECT topic_id FROM (SELECT topic_id FROM partitions UNION ALL SELECT topic_id FROM batches UNION ALL"
            " SELECT topic_id FROM producers UNION ALL SELECT topic_id FROM consumers UNION ALL SELECT topic_id FROM cursors)"
            f" WHERE topic_id NOT IN (SELECT topic_id FROM topics) AND {_ALIVE} ORDER BY 1"
        ),
    ),
    (
        "receipts are not dense from the first to the next",
        (
            "SELECT ordinal FROM (SELECT ordinal, count, lag(ordinal + count, 1, first_receipt) OVER (ORDER BY ordinal)"
            " AS expected FROM receipts, machine) WHERE ordinal != expected OR count < 1"
            " UNION ALL SELECT next_receipt FROM machine WHERE next_receipt - first_receipt != loose_count +"
            " (SELECT ifnull(sum(count), 0) FROM receipts) OR min(loose_count, 1) != min(length(loose_keys), 1)"
            " OR min(loose_count, 1) != min(length(loose_outcomes), 1) ORDER BY 1"
        ),
    ),
)

_BODIES = (
    "SELECT topic_id, partition, base_offset, count, end_bytes, body FROM batches"
    " ORDER BY topic_id, partition, base_offset"
)


def check(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the rows, one sentence each; nothing, if the machine keeps its promises."""
    wrong = []
    for rule, statement in (*_RULES, *_TASK_RULES, *_WORKER_RULES, *_HISTORY_RULES):
        found = connection.execute(statement).fetchmany(3)
        if found:
            wrong.append(f"{rule}: {found}")
    decode = msgspec.json.Decoder(list[t.Message]).decode
    end_bytes: dict[tuple[int, int], int] = {}
    """Of the partitions, as far as they are read; those of topics that were deleted may have lost their beginning."""
    for topic_id, partition, base, count, end, body in connection.execute(_BODIES):
        messages = decode(unpack(body))
        if len(messages) != count:
            wrong.append(f"a body has not as many messages as its row says: {(topic_id, partition, base)}")
        before = end_bytes.get((topic_id, partition), end - t.size_bytes(messages) if base else 0)
        end_bytes[topic_id, partition] = end
        if before + t.size_bytes(messages) != end:
            wrong.append(f"a partition has not the bytes that its rows say: {(topic_id, partition, base)}")
    return wrong
