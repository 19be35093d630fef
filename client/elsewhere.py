"""What other task queues for Python call things that are here too: whoever writes from habit is told the word.

Only what is certain is said: where something is not there at all, a name stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

OPTIONS: Mapping[str, str] = {
    "countdown": "delay",
    "default_retry_delay": "backoff",
    "eta": "run_at",
    "job_id": "id",
    "job_timeout": "timeout",
    "max_age": "expires",
    "max_retries": "retries",
    "retry": "retries",
    "soft_time_limit": "timeout",
    "task_id": "id",
    "time_limit": "timeout",
    "ttl": "expires",
}
"""Options of a task."""
APP: Mapping[str, str] = {
    "AsyncResult": "handle(id)",
    "actor": "task",
    "enqueue": "submit(name, …)",
    "send_task": "submit(name, …)",
}
TASK: Mapping[str, str] = {
    "AsyncResult": "handle(id)",
    "apply": "the function itself: task(…)",
    "apply_async": "options(…).delay(…)",
    "enqueue": "delay(…)",
    "message": "call(…)",
    "retry": "raise Retry(in_=…) in the function",
    "s": "call(…)",
    "send": "delay(…)",
    "send_with_options": "options(…).delay(…)",
    "si": "call(…)",
    "signature": "call(…)",
}
HANDLE: Mapping[str, str] = {
    "abort": "cancel()",
    "get": "result(timeout)",
    "get_status": "status()",
    "ready": "status()",
    "return_value": "result(timeout)",
    "revoke": "cancel()",
    "state": "status()",
    "successful": "status()",
    "wait": "result(timeout)",
}


def no_attribute(of: object, name: str, words: Mapping[str, str]) -> AttributeError:
    """Return the error for an attribute that there is not."""
    said = f"{type(of).__name__!r} object has no attribute {name!r}"
    return AttributeError(f"{said}; here that is {words[name]}" if name in words else said, name=name, obj=of)
