"""The card of a model or an encoded corpus: all that its manifest says about it, as lines to read.

A manifest may come from anywhere, and only what reading vectors relies on was checked when it was opened: whatever else
it holds is shown as it is, and nothing that is missing or strange makes the card fail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jose_embed.progress import amount_text, duration_text

__all__ = ["card", "encoding_card"]

_EPOCHS_SHOWN = 20
_BAR = 30

_TEXT_NAMES = {
    "n_sources": "files",
    "sources": "sources",
    "sha256": "SHA-256",
    "n_bytes": "size",
    "n_documents": "documents",
    "n_empty": "empty documents",
    "n_tokens_seen": "running words",
    "n_words_seen": "different words",
    "invalid_utf8_lines": "invalid UTF-8, lines",
    "invalid_utf8_bytes": "invalid UTF-8, bytes",
}


def card(
    manifest: Mapping[str, Any], name: str, *, frequent: Sequence[str] = (), quality: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """All that a model says about itself.

    Args:
        manifest: The model's manifest.
        name: What the card is headed.
        frequent: Its most frequent words.
        quality: Tables of figures, as :func:`~jose_embed.model.quality.read_quality` gives them.

    Returns:
        The lines.
    """
    counts, training, corpus = (_mapping(manifest.get(part)) for part in ("counts", "training", "corpus"))
    files = {file: _mapping(facts).get("bytes", 0) for file, facts in _mapping(manifest.get("files")).items()}
    about = {
        "id": manifest.get("id"),
        "created": f"{manifest.get('created')} by jose-embed {manifest.get('package_version')}",
        "words": _value(counts.get("n_words")),
        "documents": _documents(counts, manifest),
        "tokens": _value(counts.get("n_tokens")),
        "dimension": _value(counts.get("dim")),
        "tokenizer": _tokenizer(manifest),
        "most frequent": ", ".join(frequent),
    }
    sections: dict[str, Mapping[str, Any]] = {
        "": about,
        "text": {_TEXT_NAMES.get(key, key): _text_value(key, value) for key, value in _ordered(corpus).items()},
        "settings": {key: _value(value) for key, value in _mapping(manifest.get("config")).items()},
        "training": {
            key.replace("_", " "): _value(value)
            for key, value in training.items()
            if key not in ("epochs", "phases", "machine", "run")
        },
        "time": _times(_mapping(training.get("phases"))),
        "machine": _machine(_mapping(training.get("machine"))),
        f"files, {amount_text(sum(files.values()), 'bytes')}": {
            file: amount_text(size, "bytes") for file, size in files.items()
        },
    }
    return [*_headed(name, sections), *_loss_curve(training.get("epochs")), *_quality(quality)]


def encoding_card(manifest: Mapping[str, Any], name: str, *, sources: Sequence[str]) -> list[str]:
    """All that an encoded corpus says about itself.

    Args:
        manifest: Its manifest.
        name: What the card is headed.
        sources: The names of what was encoded.
    """
    counts, least = _mapping(manifest.get("counts")), _value(manifest.get("min_count"))
    corpus = {**_mapping(manifest.get("corpus")), "sources": list(sources)}
    files = {file: _mapping(facts).get("bytes", 0) for file, facts in _mapping(manifest.get("files")).items()}
    about = {
        "created": f"{manifest.get('created')} by jose-embed {manifest.get('package_version')}",
        "documents": _value(counts.get("n_documents")),
        "tokens": _value(counts.get("n_tokens")),
        "words": f"{_value(counts.get('n_words'))} (those that occur {least} times or more)",
        "tokenizer": _tokenizer(manifest),
        "size": amount_text(sum(files.values()), "bytes"),
    }
    text = {_TEXT_NAMES.get(key, key): _text_value(key, value) for key, value in _ordered(corpus).items()}
    return _headed(name, {"": about, "text": text})


def _headed(name: str, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sections that hold something, under their titles."""
    lines = [name, "=" * len(name)]
    for title, rows in sections.items():
        if rows:
            lines += ["", title] if title else [""]
            width = max(map(len, rows))
            lines += [f"  {key:<{width}}  {value}" for key, value in rows.items()]
    return lines


def _tokenizer(manifest: Mapping[str, Any]) -> str:
    facts = _mapping(manifest.get("tokenizer"))
    return ", ".join(filter(None, [str(facts.get("name")), _value(_mapping(facts.get("settings")))]))


def _ordered(corpus: Mapping[str, Any]) -> dict[str, Any]:
    """What is known first, in the order of its names here."""
    return {key: corpus[key] for key in _TEXT_NAMES if key in corpus} | dict(corpus)


def _text_value(key: str, value: Any) -> str:
    return amount_text(value, "bytes") if key == "n_bytes" and _is_number(value) else _value(value)


def _times(phases: Mapping[str, Any]) -> dict[str, str]:
    """Each phase with its seconds and its share of them all."""
    known = {str(phase): float(seconds) for phase, seconds in phases.items() if _is_number(seconds)}
    total = sum(known.values())
    if total <= 0:
        return {}
    width = max(len(duration_text(seconds)) for seconds in [*known.values(), total])
    rows = {phase: f"{duration_text(seconds):>{width}}  {seconds / total:4.0%}" for phase, seconds in known.items()}
    return {**rows, "together": f"{duration_text(total):>{width}}"}


def _machine(facts: Mapping[str, Any]) -> dict[str, str]:
    shown = {key: _value(value) for key, value in facts.items() if key not in ("memory_bytes", "packages")}
    if _is_number(facts.get("memory_bytes")):
        shown["memory"] = amount_text(facts["memory_bytes"], "bytes")
    return shown | {str(name): str(version) for name, version in _mapping(facts.get("packages")).items()}


def _loss_curve(epochs: Any) -> list[str]:
    """Loss, share of active hinges, time and speed by epoch, with a bar as long as the loss; 20 epochs at most."""
    known = [
        epoch
        for epoch in (epochs if isinstance(epochs, list) else [])
        if isinstance(epoch, dict) and all(_is_number(epoch.get(key)) for key in ("epoch", "loss"))
    ]
    if not known:
        return []
    step = -(-len(known) // _EPOCHS_SHOWN)
    shown = [*known[:-1:step], known[-1]]
    largest = max(epoch["loss"] for epoch in shown)
    lines = ["", "epochs", "  epoch    loss  active        time     words/s"]
    for epoch in shown:
        active = f"{100 * epoch['active']:.1f}%" if _is_number(epoch.get("active")) else "?"
        seconds = duration_text(epoch["seconds"]) if _is_number(epoch.get("seconds")) else "?"
        speed = amount_text(epoch["words_per_second"]) if _is_number(epoch.get("words_per_second")) else "?"
        bar = "#" * round(_BAR * max(0.0, epoch["loss"] / largest)) if largest > 0 else ""
        lines.append(f"  {epoch['epoch']:>5}  {epoch['loss']:.4f}  {active:>6}  {seconds:>10}  {speed:>10}  {bar}")
    return lines


def _quality(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tables, each under its title."""
    lines = ["", "quality"] if tables else []
    for number, table in enumerate(tables):
        columns = list(dict.fromkeys(column for row in table["rows"] for column in row))
        rows = [columns, *([_figure(row.get(column)) for column in columns] for row in table["rows"])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        lines += [*([""] if number else []), f"  {table['title']} (measured {table['measured']})"]
        for row in rows:
            cells = (f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            lines.append(f"    {'  '.join(cells)}".rstrip())
        if isinstance(table.get("note"), str):
            lines.append(f"    {table['note']}")
    return lines


def _figure(value: Any) -> str:
    if isinstance(value, dict) and _is_number(value.get("mean")):
        deviation = value.get("deviation")
        return f"{value['mean']:.3f}" + (f" ± {deviation:.3f}" if _is_number(deviation) and deviation else "")
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else _value(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    """Whether it is a finite number of a size that somebody could have measured."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)
    )


def _documents(counts: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if counts.get("n_docs") == 0 and _mapping(manifest.get("config")).get("doc_vectors") == "none":
        return f"none kept, of {_value(_mapping(manifest.get('corpus')).get('n_documents'))} in the text"
    return f"{_value(counts.get('n_docs'))} ({_value(counts.get('n_untrained'))} untrained: no known word)"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        more = [f"and {len(value) - 5:,} more"] if len(value) > 5 else []
        return ", ".join([*map(_value, value[:5]), *more])
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 10**30 else "a number of more than 30 digits"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
