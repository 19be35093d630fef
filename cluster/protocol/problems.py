"""The catalogue of problems: what can be wrong with a call, why, and what to do.

One row per stable ``code``: the refusals of the table of operations, and those that HTTP and the cluster add. Server,
documentation and client read the same rows. A problem travels as RFC 9457 ``application/problem+json``.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.operations import OPERATIONS

RETRY_AFTER_MS_DEFAULT = 1000
"""What a caller is told to wait where nothing better is known: about an election."""
DETAIL_CHARS_MAX = 500
"""Details may quote what was sent; this bounds the echo."""


class IdempotencyKeyReused(Rejection, frozen=True, tag="idempotency_key_reused"):
    """The idempotency key was used before, with another request."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Idempotency key reused"
    hint: ClassVar[str] = (
        "Make a new key for every new request; keep a key only to repeat the very same request, message values byte for byte."
    )


class CommandFailed(Rejection, frozen=True, tag="command_failed"):
    """The command failed in the same way on every node and changed nothing."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Command failed"
    hint: ClassVar[str] = "This is a defect of quorl: please report it with the request id and the detail."


class Kind(NamedTuple):
    """One row of the catalogue: what it is (``title``), why, and what to do (``hint``).

    ``retryable``: the same call may succeed later, or at another node.
    """

    code: str
    status: int
    title: str
    why: str
    hint: str
    retryable: bool


def kind_of(rejection: type[Rejection]) -> Kind:
    """Return the catalogue's row for a class of refusals."""
    code = str(rejection.__struct_config__.tag)
    return Kind(code, rejection.status, rejection.title, _meaning(rejection), rejection.hint, rejection.transient)


def _meaning(rejection: type[Rejection]) -> str:
    """The first line of a refusal's docstring, which is what it says of itself."""
    return (rejection.__doc__ or "").strip().splitlines()[0].replace("``", "`")


SEE_TO = (
    "See to the members that the detail names: start those that do not run, make room where a disk is full, and where one runs, "
    "check the network, the addresses in the configs and the secret; its log says why a connection is refused."
)
REPEAT = "Repeat the call; the client libraries do so by themselves."

_OF_HTTP = (
    Kind(
        "malformed_request",
        400,
        "Request is not HTTP",
        "The request cannot be read: its first line, a header or the framing of its body is malformed.",
        "Look at what the client, or a proxy before the node, sends.",
        False,
    ),
    Kind(
        "invalid_json",
        400,
        "Body is not JSON",
        "The body cannot be read as JSON.",
        "Send UTF-8 JSON as RFC 8259 has it; the detail says where it breaks.",
        False,
    ),
    Kind(
        "invalid_parameter",
        400,
        "Invalid parameter",
        "Something in the query, the path or a header is not as it must be.",
        "Correct the parameter or header that the detail names.",
        False,
    ),
    Kind(
        "forbidden_origin",
        403,
        "Page of another site",
        "A browser sent the call for a web page that this node did not serve.",
        "A web page may call only the node that served it. Programs send no Origin header.",
        False,
    ),
    Kind(
        "forbidden_host",
        403,
        "Wrong host",
        "The node listens on loopback only, and was called by a name that is not its own: perhaps for a stranger's web page.",
        "Call a node that listens on loopback only as localhost, by a loopback address, or by its address in the config.",
        False,
    ),
    Kind(
        "route_not_found",
        404,
        "No such route",
        "Nothing is served at this path.",
        "GET /openapi.json lists every route.",
        False,
    ),
    Kind(
        "method_not_allowed",
        405,
        "Method not allowed",
        "The path exists, but not for this method.",
        "Use one of the methods in the Allow header.",
        False,
    ),
    Kind(
        "not_acceptable",
        406,
        "Not acceptable",
        "The Accept header does not allow JSON.",
        "Answers are JSON: accept application/json, or leave Accept out.",
        False,
    ),
    Kind(
        "request_timeout",
        408,
        "Body did not arrive",
        "The body was announced and did not arrive in time.",
        "Send the whole body at once, or check the network between client and node.",
        True,
    ),
    Kind(
        "payload_too_large",
        413,
        "Payload too large",
        "The body, or a message in it, is larger than the limit.",
        "Send fewer messages per call, or store large data elsewhere and send its URL.",
        False,
    ),
    Kind(
        "target_too_long",
        414,
        "Path or query too long",
        "Path and query together are longer than the limit.",
        "Shorten the path or the query.",
        False,
    ),
    Kind(
        "unsupported_media_type",
        415,
        "Unsupported media type",
        "The Content-Type of the body is not JSON.",
        "Send Content-Type: application/json.",
        False,
    ),
    Kind(
        "upgrade_required",
        426,
        "Upgrade required",
        "Behind this path there is no answer, but another protocol.",
        "It is the channel, which the client libraries speak by themselves. Every operation has a route of its own: GET /openapi.json lists them.",
        False,
    ),
    Kind(
        "validation_failed",
        422,
        "Invalid request",
        "A field is missing, unknown, or has a value that is not allowed.",
        "Correct the fields that `errors` points at.",
        False,
    ),
    Kind(
        "headers_too_large",
        431,
        "Headers too large",
        "A header is longer than 16 KiB, or there are more than 128 of them.",
        "Send fewer and shorter headers; a proxy before the node may add some, and a browser cookies.",
        False,
    ),
    Kind(
        "too_many_requests",
        429,
        "Too many requests",
        "More calls wait than the cluster takes; this one was not carried out.",
        "Slow down and repeat the call after Retry-After.",
        True,
    ),
    Kind(
        "internal",
        500,
        "Internal error",
        "The node met a defect of its own; a write may have been carried out or not.",
        "This is a defect of quorl: please report it with the request id.",
        False,
    ),
    Kind(
        "unreadable_answer",
        502,
        "Answer is not quorl's",
        "The answer is in no form that a node gives.",
        "Something between client and node answered in the node's place: check the URL and any proxy.",
        True,
    ),
    Kind(
        "no_leader",
        503,
        "No leader",
        "No node leads at the moment, so nothing can be written; the call was not carried out.",
        "An election is under way or no majority is up. " + REPEAT,
        True,
    ),
    Kind(
        "no_quorum",
        503,
        "No quorum",
        "Too few members reach each other to decide anything; the call was not carried out.",
        f"{SEE_TO} Reads still work with ?consistency=local.",
        True,
    ),
    Kind(
        "not_ready",
        503,
        "Not ready",
        "The node has not yet applied what the answer must contain.",
        "This node is catching up: repeat the call, or ask another node.",
        True,
    ),
    Kind(
        "too_many_streams",
        503,
        "Too many streams",
        "The node serves as many streams of events as it takes.",
        "Close pages that nobody looks at, or open the stream at another node.",
        True,
    ),
    Kind(
        "shutting_down",
        503,
        "Shutting down",
        "The node takes no new calls; this one was not carried out.",
        "This node is stopping: ask another one.",
        True,
    ),
    Kind(
        "commit_unknown",
        504,
        "Outcome unknown",
        "The leader was lost, or the time was over, before it was known what became of the write.",
        "The write may have happened or not: repeat it with the Idempotency-Key of this answer, which is safe.",
        True,
    ),
    Kind(
        "storage_full",
        507,
        "Storage full",
        "The leader's disk, or those of so many members that no majority is left, have too little room; the call was not carried out.",
        "Make room where the data_dir of each node is that the detail names; writes are then taken again by themselves.",
        False,
    ),
)


def _catalogue() -> dict[str, Kind]:
    refusals = {rejection for row in OPERATIONS for rejection in row.rejections} | {IdempotencyKeyReused, CommandFailed}
    kinds = sorted({*_OF_HTTP, *map(kind_of, refusals)}, key=lambda kind: (kind.status, kind.code))
    catalogue = {kind.code: kind for kind in kinds}
    assert len(catalogue) == len(kinds), "two problems share a code"
    return catalogue


CATALOGUE: dict[str, Kind] = _catalogue()
"""Every problem by its code, in order of status."""


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field; ``pointer`` is an RFC 6901 JSON pointer into the request."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True):
    """A problem with one call. ``hint`` and ``retry_after_ms`` replace the catalogue's where they are given."""

    code: str
    detail: str = ""
    hint: str = ""
    errors: tuple[FieldError, ...] = ()
    retry_after_ms: int | None = None
    allow: tuple[str, ...] = ()
    """For ``method_not_allowed``: the methods that are."""

    @property
    def kind(self) -> Kind:
        """The catalogue's row."""
        return CATALOGUE[self.code]


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A problem on its way over HTTP. Only ``code`` is certain to be there when one is read."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    instance: str = ""
    code: str
    hint: str = ""
    retryable: bool = False
    retry_after_ms: int | UnsetType = UNSET
    request_id: str = ""
    node: str = ""
    leader: str | None = None
    errors: list[FieldError] | UnsetType = UNSET


class ProtocolError(Exception):
    """The call itself is wrong; nothing was done."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


class Refusal(Exception):
    """The answer is a problem document."""

    def __init__(self, problem: ProblemDocument) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


def invalid(pointer: str, detail: str) -> ProtocolError:
    """Return the error for one field that breaks a rule."""
    detail = detail[:DETAIL_CHARS_MAX]
    error = FieldError(pointer[:DETAIL_CHARS_MAX], detail)
    return ProtocolError(Problem("validation_failed", f"{error.pointer or 'The request'}: {detail}", errors=(error,)))


def problem_of(rejection: Rejection) -> Problem:
    """Return the problem that a refusal of the machine becomes over HTTP."""
    code = str(rejection.__struct_config__.tag)
    return Problem(code, rejection.detail or _meaning(type(rejection)))


def _plain(text: str) -> str:
    """Replace what UTF-8 cannot carry: details and paths quote what strangers sent."""
    return text.encode(errors="replace").decode()


def document_of(problem: Problem, *, instance: str, request_id: str, node: str, leader: str | None) -> ProblemDocument:
    """Return the document for a problem: the catalogue's row, the detail, and where it happened."""
    kind = problem.kind
    retry_after_ms = problem.retry_after_ms or RETRY_AFTER_MS_DEFAULT
    return ProblemDocument(
        type=f"/problems/{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=_plain(problem.detail),
        instance=_plain(instance),
        code=kind.code,
        hint=problem.hint or kind.hint,
        retryable=kind.retryable,
        retry_after_ms=retry_after_ms if kind.retryable else UNSET,
        request_id=request_id,
        node=node,
        leader=leader,
        errors=list(problem.errors) or UNSET,
    )


def explained(kind: Kind) -> str:
    """Return what is to be said about a kind of problem, as text."""
    again = "repeat the call later or at another node" if kind.retryable else "repeating the same call will not help"
    lines = (f"{kind.code}  HTTP {kind.status}", f"what   {kind.title}", f"why    {kind.why}", f"again  {again}")
    return "\n".join([*lines, f"try    {kind.hint}"]) + "\n"


def catalogue_markdown() -> str:
    """Return the catalogue as a Markdown table, for the documentation."""
    rows = ["| code | status | retryable | title | what to do |", "|---|---|---|---|---|"]
    rows += [
        f"| `{kind.code}` | {kind.status} | {'yes' if kind.retryable else 'no'} | {kind.title} | {kind.hint} |"
        for kind in CATALOGUE.values()
    ]
    return "\n".join(rows) + "\n"
