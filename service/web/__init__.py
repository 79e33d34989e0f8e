"""HTTP: the server and its protocol, routes, bodies, keys, schemas."""

from __future__ import annotations
