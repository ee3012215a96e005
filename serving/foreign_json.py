"""JSON as others write it, read into typed structs."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_ESCAPES: Final = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""A backslash, or both halves of a character (group 1); or half of one."""


def read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A body in its type. Half a character reads as U+FFFD.

    JavaScript and Python write a title that was cut amid an emoji with an escape of the half that is left. That is JSON
    (RFC 8259, section 8.2), but no text: without this one such title would have a whole batch refused.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: not JSON, not UTF-8, or of another shape.
    """
    body.decode("utf-8")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        mended = _ESCAPES.sub(lambda found: found[1] or rb"\ufffd", body)
        if mended == body:
            raise
        return decoder.decode(mended)
