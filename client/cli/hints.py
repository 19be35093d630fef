"""What to do about a refusal, in the words of the command line: the catalogue's hints speak HTTP."""

from __future__ import annotations

HINTS = {
    "topic_not_found": "Create it: quorl topic create NAME. Those that exist: quorl topic ls",
    "consumer_not_found": "Ids are per topic: quorl topic show NAME lists them, quorl topic consume NAME --register makes one.",
    "partition_not_found": "Partitions are numbered from 0: quorl topic show NAME lists them.",
    "message_not_found": "Offsets are dense from 0: quorl topic show NAME says where each partition ends.",
    "already_exists": "Use the one that exists, or choose another name; quorl topic show NAME describes it.",
    "topic_not_empty": "Leave out --if-empty to delete the topic with its messages.",
    "validation_failed": "Correct what the line above names.",
    "invalid_parameter": "Correct what the line above names.",
    "payload_too_large": "Publish smaller messages, or store large data elsewhere and publish its URL.",
    "route_not_found": "Is the server a quorl node, and as new as this program? quorl version",
    "forbidden_host": "Give the server as an address of loopback or as the node's config has it: quorl --server URL",
}
"""By code; for every other the catalogue's hint does."""
