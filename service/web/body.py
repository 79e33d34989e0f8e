"""JSON bodies within bounds.

Refused are anything but one JSON value in UTF-8, the literals NaN and Infinity, lone surrogates and values nested
deeper than the parser allows (200 levels). A number beyond float64 is read as infinity, which the schemas refuse.

The parser and the validation hold the interpreter's lock, so that all other requests wait. Text and numbers are cheap:
2 MB take a few milliseconds. Lists, objects and members are not: 2 MB of empty lists take half a second. No call needs
more than some ten thousand of them.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import pydantic_core
from pydantic import BaseModel, ValidationError

from service.problems import Problem, from_validation

MOST_PARTS: Final = 16_384  # lists, objects and members of a body
_MOST_ERRORS: Final = 256

Model = TypeVar("Model", bound=BaseModel)


def validated(body: bytes, model: type[Model]) -> Model | Problem:
    """The request in a JSON text, or the problem with it.

    The problem is returned and not raised: a traceback would keep the body alive until the next garbage collection.

    Args:
        body: UTF-8.
        model: The schema of the request.

    Returns:
        The request, or a problem of the kind ``malformed-json`` or ``invalid-request``.
    """
    n_parts = _n_parts(body)
    if n_parts > MOST_PARTS:
        return Problem(
            "invalid-request",
            f"the body holds {n_parts:,} or more lists, objects and members; at most {MOST_PARTS:,} are allowed",
            errors=[],
        )
    try:
        value: Any = pydantic_core.from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        return Problem("malformed-json", str(error))
    try:
        return model.model_validate(value)
    except ValidationError as error:
        n_errors = error.error_count()
        if n_errors > _MOST_ERRORS:  # to describe thousands takes longer than to find them
            return Problem("invalid-request", f"{n_errors:,} places of the body do not fit", errors=[])
        found = [
            {**item, "loc": ("body", *item["loc"]), "known": list(model.model_fields) if len(item["loc"]) == 1 else []}
            for item in error.errors(include_url=False)
        ]
        return from_validation(found)


def _n_parts(body: bytes) -> int:
    """The number of lists, objects and members of a JSON text, or a lower bound of it above :data:`MOST_PARTS`."""
    n = _n_marks(body)
    if n <= MOST_PARTS:
        return n
    # Some of the marks may be inside strings: count those outside.
    pieces = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"', 4 * MOST_PARTS)
    return max(_n_marks(b"".join(pieces[::2])), len(pieces) // 4)


def _n_marks(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{") + text.count(b":")
