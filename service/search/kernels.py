"""Whether the kernels of the compiled path of inference are there; a process of their own compiles them.

The compiler takes seconds and some hundred megabytes that a process never gives back. Until the kernels are on the
disk, and where none are kept (``JOSE_CACHE_DIR=off``), the service embeds texts one by one.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

_PROGRAM: Final = "import sys; sys.path[:] = sys.argv[2:]; from jose_embed.model.kernels import main; main(sys.argv[1])"
_SECONDS: Final = 600.0
_log = logging.getLogger("service")


class Kernels:
    """Whether the kernels of a model are on the disk; they are compiled at the first question.

    Args:
        model: The directory of the model.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._ready = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """True as soon as they can be loaded; never waits."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._compile, name="kernels", daemon=True)
                self._thread.start()
        return self._ready

    def _compile(self) -> None:
        command = [sys.executable, "-c", _PROGRAM, str(self._model), *sys.path]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            reason = "" if ended.returncode == 0 else (ended.stderr.strip().splitlines() or ["no reason"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if reason:
            _log.warning("many texts are embedded one by one, which takes longer: %s", reason)
        self._ready = not reason
