"""``python -m jose_embed`` is the program ``jose``."""

from __future__ import annotations

import sys

from jose_embed.programs import jose

if __name__ == "__main__":
    sys.exit(jose())
