"""service.py is a program; collected for doctests it would stand in the way of the package of its name."""

from __future__ import annotations

collect_ignore = ["service.py"]
