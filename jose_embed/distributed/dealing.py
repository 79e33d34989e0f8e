"""Files are dealt to machines: consecutive ones in their order, about equally many bytes for each machine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jose_embed.errors import ConfigError
from jose_embed.progress import amount_text
from jose_embed.text.sources import Source, printable

_MOST_UNEQUAL = 1.5  # times the mean


def dealt(sources: Sequence[Source], nodes: int) -> list[list[Source]]:
    """The files of each machine.

    Args:
        sources: The files, in their order.
        nodes: The number of machines.

    Returns:
        A list for each machine. The documents keep the order that they have on one machine.

    Raises:
        ConfigError: a source without a size, too few files, or files that are too unequal.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [pathlib.Path(folder, name) for name in "abcd"]
        ...     _ = [path.write_text("text") for path in paths]
        ...     shares = dealt([Source(str(path), path.name) for path in paths], 2)
        >>> [[source.name for source in share] for share in shares]
        [['a', 'b'], ['c', 'd']]
    """
    sizes = []
    for source in sources:
        source.check()
        if (size := source.size()) is None:
            raise ConfigError(f"{printable(source.name)}: has no size, so it cannot be dealt to machines; name files")
        sizes.append(size)
    # Ids are paths relative to a folder; if there are several folders, they are paths.
    if len({source.folder for source in sources}) > 1:
        sources = [dataclasses.replace(source, folder=None) for source in sources]
    if nodes == 1:
        return [list(sources)]
    advice = f"split them, as with: split -n l/{4 * nodes} TEXT part-; or lower nodes"
    if len(sources) < nodes:
        n = f"{len(sources):,} file{'s' if len(sources) != 1 else ''}"
        raise ConfigError(f"nodes is {nodes}, but the text has {n}, and each machine reads whole files; {advice}")
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    borders = [0]
    for share in range(1, nodes):
        goal = total * share / nodes
        border = int(np.abs(ends - goal).argmin()) + 1
        borders.append(min(max(border, borders[-1] + 1), len(sources) - (nodes - share)))
    borders.append(len(sources))
    parts = [list(sources[begin:end]) for begin, end in itertools.pairwise(borders)]
    largest = max(sum(sizes[begin:end]) for begin, end in itertools.pairwise(borders))
    if largest > _MOST_UNEQUAL * total / nodes:
        raise ConfigError(
            f"nodes is {nodes}, but the files are too unequal: one machine would read {amount_text(largest, 'bytes')} "
            f"of {amount_text(total, 'bytes')}; {advice}"
        )
    return parts
