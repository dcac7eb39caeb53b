"""JSON text that a strict reader accepts, from whatever user code produced."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DEPTH = 64


def dumps(value: Any) -> str:
    """Serialise `value`; what JSON cannot say becomes text (base64 for bytes).

    Parameters
    ----------
    value
        Usually a tree of dicts, lists and scalars.

    Returns
    -------
    str
        Valid JSON without NaN or lone surrogates.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except Exception:
        text = json.dumps(_plain(value, 0), allow_nan=False, ensure_ascii=False)
    return valid_text(text, "\\\\u%04x")


def valid_text(text: str, pattern: str = "\\u%04x") -> str:
    """Replace lone surrogates, which UTF-8 cannot carry.

    Parameters
    ----------
    text
        Any string.
    pattern
        How a surrogate is written.

    Returns
    -------
    str
        A string that can be encoded.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(lambda found: pattern % ord(found[0]), text)
    return text


def _plain(value, depth):
    if value is None or isinstance(value, (bool, int)):
        return value if value is None or type(value) in (bool, int) else int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1) for item in value]
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
