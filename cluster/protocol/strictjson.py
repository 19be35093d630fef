"""Reading JSON that strangers sent, so strictly that whatever passes can be read back by anybody.

msgspec skips what is inside a raw value, invalid UTF-8 and numbers out of range included. So a body is first read without
types, which finds all of that, and then with its types. Of most large bodies a search of the bytes shows at a fraction of
that cost that there is nothing of the kind: ``read_plainly``. Whatever is wrong leaves here as a ``ProtocolError`` that says
where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.problems import DETAIL_CHARS_MAX, FieldError, Problem, ProtocolError, invalid
from quorl.cluster.protocol.wording import Fault, worded

T = TypeVar("T")

_untyped = msgspec.json.Decoder()
_BYTE = re.compile(r" \(byte (\d+)\)$")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"\\'))
_DIGITS = bytes.maketrans(b"123456789E", b"0" * 9 + b"e")
_LONG = b"0" * 200
"""So many digits in a row, with an exponent of two digits, may be more than a double holds."""
_POWERS = (b"0e000", b"0e+000")
"""Below zero an exponent makes a number small, never too large."""
_POWERS_MAX = 1_000
"""More of them are looked at no faster than all is decoded; names in hexadecimal digits have some."""
_END_OF_NUMBER = b",]} \t\r\n"
_NESTING = frozenset({dict, list})
_TOO_DEEP = f"JSON may be nested {limits.JSON_NESTING_MAX} deep."


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that ``body`` is; every value in it can be decoded."""
    if len(body) > limits.REQUEST_BYTES_MAX:
        detail = f"The body has {len(body)} bytes; {limits.REQUEST_BYTES_MAX} are allowed."
        raise ProtocolError(Problem("payload_too_large", detail))
    try:
        if not body.isascii():
            body.decode()
        tree = _untyped.decode(body)
    except UnicodeDecodeError as error:
        raise _broken(body, error.start, "invalid UTF-8") from None
    except RecursionError:
        raise invalid("", _TOO_DEEP) from None
    except msgspec.ValidationError as error:
        what = str(error).split(" - at ", maxsplit=1)[0]
        raise invalid("", f"{what}: a number that readers cannot keep") from None
    except msgspec.DecodeError as error:
        text = str(error).removeprefix("JSON is malformed: ")
        found = _BYTE.search(text)
        at, what = (int(found[1]), text[: found.start()]) if found else (len(body), _cut_short(body))
        raise _broken(body, at, what) from None
    if not isinstance(tree, dict):
        raise invalid("", f"expected a JSON object, got {_json_type(tree)}")
    if not surely_shallow(body) and deeper_than(tree, limits.JSON_NESTING_MAX):
        raise invalid("", _TOO_DEEP)
    return tree


def read_typed(body: bytes, decoder: msgspec.json.Decoder[T], known: Iterable[str]) -> T:
    """Decode a body that ``read_object`` has passed; ``known`` are the field names to guess from."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise faulty(worded(str(error), known, _untyped.decode(body))) from None


def read_plainly(body: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Decode a body of which a search shows that ``read_object`` would pass it; None: read it the long way, and see."""
    if len(body) > limits.REQUEST_BYTES_MAX:
        return None
    try:
        if not body.isascii():
            body.decode()
        found = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if surely_keepable(body) and surely_shallow(body) else None


def faulty(fault: Fault) -> ProtocolError:
    """Return the error for one wrong field."""
    sentence = fault.sentence[:DETAIL_CHARS_MAX]
    error = FieldError(fault.pointer[:DETAIL_CHARS_MAX], sentence)
    return ProtocolError(Problem("validation_failed", sentence, errors=(error,)))


def _broken(body: bytes, at: int, what: str) -> ProtocolError:
    line_start = body.rfind(b"\n", 0, at) + 1
    line, column = body.count(b"\n", 0, at) + 1, len(body[line_start:at].decode(errors="replace")) + 1
    return ProtocolError(Problem("invalid_json", f"line {line}, column {column}: {what}"))


def _cut_short(body: bytes) -> str:
    """An escaped surrogate near the end makes msgspec look for its other half beyond it."""
    return "a surrogate without its other half" if b"\\ud" in body[-12:].lower() else "the body ends too early"


def surely_shallow(body: bytes) -> bool:
    """Whether the brackets of well-formed JSON alone show that it is not nested too deep; False: walk it to find out.

    Most bodies are settled so, at a quarter of what walking costs. A string without brackets leaves two quotes side by
    side; any other quote belongs to a string with brackets, which would be miscounted.
    """
    if len(body) <= 2 * limits.JSON_NESTING_MAX:  # every level has two brackets
        return True
    structure = body.translate(None, _NOT_STRUCTURE)
    skeleton = structure.translate(None, b'"\\')
    if len(skeleton) <= 2 * limits.JSON_NESTING_MAX:
        return True
    if len(skeleton) + 2 * structure.count(b'""') < len(structure):
        return False
    for _ in range(limits.JSON_NESTING_MAX // 2):
        skeleton = skeleton.replace(b"{}", b"").replace(b"[]", b"")  # the innermost level, or the innermost two
        if not skeleton:
            return True
    return False


def surely_keepable(body: bytes) -> bool:
    """Whether the digits of well-formed JSON alone show that no number in it is out of range; False: decode it to find out.

    That takes an exponent of three digits, or so many digits before it. Inside strings such a thing may be seen that is none.
    """
    digits = body.translate(_DIGITS)
    if _LONG in digits:
        return False
    left = _POWERS_MAX
    for power in _POWERS if b"+" in digits else _POWERS[:1]:
        at = digits.find(power)
        while at >= 0:
            at += len(power)
            left -= 1
            behind = digits[at : at + len(_LONG)].lstrip(b"0")  # of digits in a string: its quote, or more of it
            if not left or not behind or behind[0] in _END_OF_NUMBER:
                return False
            at = digits.find(power, at)
    return True


def deeper_than(tree: Any, levels: int) -> bool:
    """Whether arrays and objects are nested deeper than so many levels."""
    layer = [tree]
    for _ in range(levels):
        layer = [
            child
            for node in layer
            for child in (node.values() if type(node) is dict else node)
            if type(child) in _NESTING  # plain types are all that a decoder makes, and cheaper to ask for
        ]
        if not layer:
            return False
    return True


def _json_type(tree: Any) -> str:
    return {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(tree), "a number")
