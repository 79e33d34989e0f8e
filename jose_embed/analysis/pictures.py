"""Pictures for papers, drawn by matplotlib: the map of documents, the loss of a training."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jose_embed.errors import ConfigError, MissingExtraError
from jose_embed.storage.atomic import atomic_file

if TYPE_CHECKING:
    from jose_embed.analysis.map import DocumentMap

#: Of the topics; told apart by eyes that miss one kind of cones, too. The first ten of static/map.js.
COLOURS: Final = (
    "#2a2dca", "#d55e00", "#316d3a", "#78548f", "#ff9900", "#6cbdc6", "#710f51", "#8e7e3e", "#3a0071", "#47004c",
)  # fmt: skip

_ENDINGS: Final = (".pdf", ".png", ".svg")
_INK, _LABEL_POINTS = "#1d2026", 7.5
_SHIFTS: Final = tuple((across, up) for across in (0.0, 0.6, -0.6) for up in (0.0, 1.0, -1.0))  # in label sizes


def map_picture(
    drawn: DocumentMap,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    overwrite: bool = False,
    dpi: int = 300,
) -> Path:
    """Write a map as a picture; arguments and errors as for :meth:`jose_embed.DocumentMap.picture`.

    A label is moved by its own size if it would cover another one, and left out if no place is free; large topics come
    first.
    """
    figure = _figure((5.5, 5.5), path)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9 if title else 0.96))
    numbers = drawn.topics.doc_topics[drawn.rows]
    shades = np.array([*COLOURS, "#a6a49f"])[np.where(numbers < 0, len(COLOURS), numbers % len(COLOURS))]
    size = float(np.clip(20_000 / max(len(drawn.rows), 1), 0.2, 14))
    order = np.random.default_rng(0).permutation(len(numbers))  # so that no topic covers the others
    x, y = drawn.positions[order].T
    axes.scatter(x, -y, s=size, c=shades[order], linewidths=0, alpha=0.75, rasterized=True)
    axes.set_axis_off()
    axes.set_aspect("equal")
    if title:
        figure.text(0.5, 0.955, _plain(title), ha="center", va="center", fontsize=11, color=_INK, parse_math=False)
    _place_labels(figure, axes, drawn)
    return _saved(figure, path, overwrite, dpi)


def loss_picture(manifest: Mapping[str, Any], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the loss of each epoch of a training as a picture: PNG, PDF or SVG by the ending of the name.

    Args:
        manifest: The manifest of a model.
        path: The file.
        overwrite: Replace an existing file.

    Raises:
        ModelError: the file exists or cannot be written.
        ConfigError: a manifest without losses, or another ending.
        MissingExtraError: the extra ``map`` is not installed.
    """
    training = manifest.get("training")
    epochs = training.get("epochs") if isinstance(training, Mapping) else None
    curves = {
        name: [
            (float(epoch["epoch"]), float(epoch[key]))
            for epoch in (epochs if isinstance(epochs, list) else [])
            if isinstance(epoch, Mapping)
            and all(isinstance(epoch.get(each), int | float) and np.isfinite(epoch[each]) for each in ("epoch", key))
        ]
        for name, key in (("training", "loss"), ("held-out documents", "held_out_loss"))
    }
    if not curves["training"]:
        raise ConfigError("the model has no losses of epochs to draw; models of jose-train have them")
    figure = _figure((5.0, 3.2), path)
    axes = figure.add_axes((0.14, 0.16, 0.82, 0.8))
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=name)
            axes.annotate(f"{y[-1]:.4g}", (x[-1], y[-1]), (0, 7), textcoords="offset points", ha="right", fontsize=8)
    if curves["held-out documents"]:
        axes.legend(frameon=False)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e2dd", linewidth=0.7)
    return _saved(figure, path, overwrite, 200)


def _place_labels(figure: Any, axes: Any, drawn: DocumentMap) -> None:
    stroke = _matplotlib("matplotlib.patheffects").withStroke(linewidth=2.2, foreground="white")
    axes.apply_aspect()
    renderer = figure.canvas.get_renderer()
    taken: list[Any] = []
    for label in drawn.labels:
        if label.level:
            continue
        text = axes.text(label.x, -label.y, _plain(label.text), parse_math=False, path_effects=[stroke])
        text.set(fontsize=_LABEL_POINTS + 2 * label.share**0.5, color=_INK, ha="center", va="center", fontweight="bold")
        box = text.get_window_extent(renderer)
        x, y = axes.transData.transform((label.x, -label.y))
        for across, up in _SHIFTS:
            right, higher = across * box.width, 1.15 * up * box.height
            moved = box.translated(right, higher)
            inside = moved.x0 >= 0 and moved.y0 >= 0 and moved.x1 <= figure.bbox.x1 and moved.y1 <= figure.bbox.y1
            if inside and not any(moved.overlaps(other) for other in taken):
                text.set_position(axes.transData.inverted().transform((x + right, y + higher)))
                taken.append(moved)
                break
        else:
            text.remove()


def _figure(size: tuple[float, float], path: str | os.PathLike[str]) -> Any:
    if Path(path).suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{os.fspath(path)}: the ending of a picture is one of {', '.join(_ENDINGS)}")
    figure = _matplotlib("matplotlib.figure").Figure(size, facecolor="white")
    _matplotlib("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def _saved(figure: Any, path: str | os.PathLike[str], overwrite: bool, dpi: int) -> Path:
    data = io.BytesIO()
    ending = Path(path).suffix.lower()[1:]
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[ending]
    with warnings.catch_warnings(), _matplotlib("matplotlib").rc_context({"svg.hashsalt": "jose", "pdf.fonttype": 42}):
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # letters that the font lacks are drawn as boxes
        figure.savefig(data, format=ending, dpi=dpi, metadata=undated)
    with atomic_file(path, overwrite=overwrite) as write:
        write(data.getvalue())
    return Path(path)


def _plain(text: str) -> str:
    """A text in one line, at most 60 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _matplotlib(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError("a picture", "map") from None
