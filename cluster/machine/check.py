"""The invariants over rows, as statements that find whatever breaks them. For tests and for doubt; it reads everything."""

from __future__ import annotations

import sqlite3

import msgspec

_ALIVE = "topic_id NOT IN (SELECT topic_id FROM graves)"
"""Of a topic that was deleted any part may be gone already."""

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
        "a partition's counters are not the sums over its batches",
        (
            "SELECT topic_id, partition FROM partitions p WHERE (next_offset, size_bytes) != (SELECT ifnull(sum(count), 0),"
            " ifnull(sum(size_bytes), 0) FROM batches b WHERE b.topic_id = p.topic_id AND b.partition = p.partition)"
            f" AND {_ALIVE} ORDER BY 1, 2"
        ),
    ),
    (
        "a cursor is outside of its partition",
        (
            "SELECT k.topic_id, k.consumer_id, k.partition FROM cursors k LEFT JOIN partitions p USING (topic_id, partition)"
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
            "SELECT m.first_receipt, m.next_receipt FROM machine m WHERE next_receipt - first_receipt !="
            " (SELECT count(*) FROM receipts WHERE ordinal >= first_receipt AND ordinal < next_receipt)"
            " OR next_receipt - first_receipt != (SELECT count(*) FROM receipts) ORDER BY 1"
        ),
    ),
)


def check(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the rows, one sentence each; nothing, if the machine keeps its promises."""
    wrong = []
    for rule, statement in _RULES:
        found = connection.execute(statement).fetchmany(3)
        if found:
            wrong.append(f"{rule}: {found}")
    decode = msgspec.json.Decoder(list[msgspec.Raw]).decode
    for topic_id, partition, base, count, body in connection.execute(
        "SELECT topic_id, partition, base_offset, count, body FROM batches ORDER BY topic_id, partition, base_offset"
    ):
        if len(decode(body)) != count:
            wrong.append(f"a body has not as many messages as its row says: {(topic_id, partition, base)}")
    return wrong
