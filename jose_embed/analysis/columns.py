"""Values of documents as colours: one byte for each, and what a legend shows."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

NO_VALUE: Final = 255
MOST_COLUMNS: Final = 6  # 8 bytes of base64 for each point
_MOST_VALUES: Final = 40  # of a category; the others are together
_MOST_COUNTED: Final = 5_000  # different values, after which a field is not a category
_FEW_NUMBERS: Final = 12  # different numbers that are a category


class Column(NamedTuple):
    """A column.

    Attributes:
        codes: uint8 (n,): the number of the value, or the place between the least and the most; 255 for none.
        facts: What the page shows: ``name``, ``kept``, and ``values``, ``counts``, ``none``, ``none_name`` of
            categories or ``least``, ``most`` of numbers.
    """

    codes: npt.NDArray[np.uint8]
    facts: dict[str, Any]


class ColumnBuilder:
    """Collects the values of one field, point after point.

    Args:
        name: The name of the field.
        n: The number of points.
        kept: Whether the page has the values from the documents, too.

    Example:
        >>> builder = ColumnBuilder("year", 3)
        >>> for value in (1999, 2001, None):
        ...     builder.add(value)
        >>> column = builder.column()
        >>> column.codes.tolist(), column.facts["values"]
        ([0, 1, 255], ['1999', '2001'])
    """

    def __init__(self, name: str, n: int, *, kept: bool = False) -> None:
        self._name, self._kept = name, kept
        self._numbers = np.empty(n, np.int32)
        self._values: dict[str, int] = {}
        self._kinds: list[Any] = []
        self._n = 0
        self._too_many = False

    def add(self, value: Any) -> None:
        """Add the value of the next point; None for none."""
        number = -1
        if value is not None and not self._too_many:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            key = f"{type(value).__name__[0]}{text}"
            if key not in self._values:
                self._values[key] = len(self._kinds)
                self._kinds.append(value)
                only_ordered = all(_ordinal(one) is not None for one in (value, self._kinds[0]))
                self._too_many = len(self._kinds) > _MOST_COUNTED and not only_ordered
            number = self._values[key]
        self._numbers[self._n] = number
        self._n += 1

    def column(self) -> Column | None:
        """The column; None if its values cannot be told by colours, as titles cannot."""
        numbers = self._numbers[: self._n]
        if self._too_many or not self._kinds or not self._n:
            return None
        ordinals = [_ordinal(value) for value in self._kinds]
        if len(self._kinds) > _FEW_NUMBERS and all(ordinal is not None for ordinal in ordinals):
            return self._ramp(numbers, np.array(ordinals, np.float64))
        return self._categories(numbers)

    def _ramp(self, numbers: npt.NDArray[np.int32], ordinals: npt.NDArray[np.float64]) -> Column:
        known = numbers >= 0
        values = ordinals[numbers[known]]
        least, most = np.quantile(values, [0.01, 0.99], method="nearest").tolist()
        if most <= least:
            least, most = float(values.min()), float(values.max())
        shares = np.clip((values - least) / ((most - least) or 1.0), 0, 1)
        codes = np.full(len(numbers), NO_VALUE, np.uint8)
        codes[known] = np.round(shares * (NO_VALUE - 1)).astype(np.uint8)
        shown = dict(zip(ordinals.tolist(), self._kinds, strict=True))
        low, high = (_shown(shown[value]) for value in (least, most))
        low, high = ("\u2264 " * bool(values.min() < least) + low, "\u2265 " * bool(values.max() > most) + high)
        return Column(codes, {"name": self._name, "kept": self._kept, "least": low, "most": high})

    def _categories(self, numbers: npt.NDArray[np.int32]) -> Column | None:
        counts = np.bincount(numbers[numbers >= 0], minlength=len(self._kinds))
        names = [_shown(value) for value in self._kinds]
        order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
        listed = order[:_MOST_VALUES]
        if counts[listed].sum() < 0.5 * counts.sum() or (len(names) > _MOST_VALUES and counts[listed[0]] < 3):
            return None
        codes = np.full(len(self._kinds) + 1, NO_VALUE, np.uint8)  # the last one for none
        codes[listed] = np.arange(len(listed))
        out = codes[numbers]
        facts = {
            "name": self._name,
            "kept": self._kept,
            "values": [names[i] for i in listed],
            "counts": [int(counts[i]) for i in listed],
            "none": int((out == NO_VALUE).sum()),
            "none_name": "(other or none)" if len(order) > len(listed) else "(none)",
        }
        return Column(out, facts)


def topic_column(numbers: npt.NDArray[np.int64], names: list[str]) -> Column:
    """The column of topics, of which there are at most 250; -1 is none."""
    facts = {
        "name": "topic",
        "kept": False,
        "values": names,
        "counts": np.bincount(numbers[numbers >= 0], minlength=len(names)).tolist(),
        "none": int((numbers < 0).sum()),
        "none_name": "(none)",
    }
    return Column(np.where(numbers < 0, NO_VALUE, numbers).astype(np.uint8), facts)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value[:200]
    return json.dumps(value, ensure_ascii=False, default=str)[:200]


def _ordinal(value: Any) -> float | None:
    """A number for a number or a date, by which values are ordered; None for others."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e30 and math.isfinite(value) else None
    if isinstance(value, str) and 8 <= len(value) <= 40:
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment.replace(tzinfo=None) - datetime.datetime(1, 1, 1)).total_seconds()  # noqa: DTZ001
    return None
