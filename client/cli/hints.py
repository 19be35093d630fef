"""What to do about a refusal, in the words of the command line: the catalogue's hints speak HTTP."""

from __future__ import annotations

NODE = "systemctl start quorl, its container, or quorl node run -c FILE"
"""What starts one node: whoever set it up knows which."""

HINTS = {
    "topic_not_found": "Create it: quorl topic create NAME. Those that exist: quorl topic ls",
    "consumer_not_found": "Ids are per topic: quorl topic show NAME lists them, quorl topic consume NAME --register makes one.",
    "producer_not_found": "Ids are per topic: quorl topic produce NAME --register LABEL makes one.",
    "partition_not_found": "Partitions are numbered from 0: quorl topic show NAME lists them.",
    "message_not_found": "Offsets are dense from 0: quorl topic show NAME says where each partition ends.",
    "already_exists": "Use the one that exists, or choose another name; quorl topic show NAME describes it.",
    "topic_not_empty": "Leave out --if-empty to delete the topic with its messages.",
    "queue_not_found": "A queue exists from its first task, or from quorl queue set NAME. Those that exist: quorl queue ls",
    "queue_differs": "Partitions are chosen when a queue is made, and stay: leave --partitions out, or use another queue.",
    "queue_not_empty": "Let workers finish, or take out what waits: quorl queue purge NAME",
    "queue_sealed": "Open it: quorl queue unseal NAME. Or use another queue.",
    "queue_full": "Let workers catch up, or allow more: quorl queue set NAME --max-depth N",
    "task_not_found": "Those that there are: quorl task ls. Finished tasks are forgotten after some days.",
    "task_exists": "Choose another id. Submitting the very same task again is fine and changes nothing.",
    "wrong_state": "Look what state it is in: quorl task show ID",
    "worker_not_found": "Those that there are: quorl worker ls",
    "worker_not_alive": "Its tasks have been given back already: quorl worker ls",
    "validation_failed": "Correct what the line above names.",
    "invalid_parameter": "Correct what the line above names.",
    "payload_too_large": "Send less at once, or store large data elsewhere and send its URL.",
    "route_not_found": "Is the server a quorl node, and as new as this program? quorl version",
    "upgrade_required": "It is no route to call. Those that there are: http://NODE/docs",
    "forbidden_host": "Give the server as an address of loopback or as the node's config has it: quorl --server URL",
    "member_not_found": "quorl cluster status lists the members.",
    "no_quorum": f"Start the members that are named ({NODE}); make room where a disk is full; where one runs, check network, "
    "addresses and secret.",
    "no_leader": "An election ends by itself: repeat it in a moment.",
    "unreadable_answer": "Is that the address of a node, and what stands before it? quorl --server URL",
    "storage_full": "Make room for the data_dir of each node that is named; writes are then taken again by themselves.",
    "transfer_refused": "quorl cluster status says who can be reached and how far behind each member is.",
}
"""By code; for every other the catalogue's hint does."""

START = f"quorl up (a cluster on this machine) · a node of a cluster as it was set up: {NODE}"
"""What starts nodes, where none answers."""

REASONS = {
    "running": "quorl task wait {id} · quorl task cancel {id}",
    "scheduled": "Nothing: it is queued by itself when its time comes.",
    "backoff": "Nothing: it is queued by itself when its time comes. quorl task show {id} has the error.",
    "paused": "quorl queue resume {queue}",
    "no_workers": "Start one: quorl worker run MODULE:APP -q {queue}",
    "no_owner": "Start a worker more: quorl worker run MODULE:APP -q {queue}",
    "unknown_name": "Start a worker that has it: quorl worker run MODULE:APP -q {queue}. Who has what: quorl worker show NAME",
    "workers_busy": "Start more: quorl worker run MODULE:APP -q {queue}, or with a higher --concurrency",
    "behind": "Start more workers, or submit with a higher --priority.",
    "ready": "Nothing: a worker takes it next.",
}
"""Why a task does not run, and what to do: likewise."""
