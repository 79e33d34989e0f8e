"""The card of a model or an encoded corpus: its manifest as lines to read.

Only the entries of a manifest that reading vectors depends on are checked when it is opened. The card shows all others
as they are and accepts missing and strange values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jose_embed.progress import amount_text, duration_text

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
    """The card of a model.

    Args:
        manifest: The manifest.
        name: The title of the card.
        frequent: The most frequent words.
        quality: Saved evaluations, from :func:`~jose_embed.model.quality.read_quality`.

    Returns:
        The lines.
    """
    counts, training, corpus = (_mapping(manifest.get(part)) for part in ("counts", "training", "corpus"))
    files = {file: _mapping(facts).get("bytes", 0) for file, facts in _mapping(manifest.get("files")).items()}
    about = {
        "id": manifest.get("id"),
        "created": f"{manifest.get('created')} by jose-embed {manifest.get('package_version')}",
        "vocabulary": f"{_value(counts.get('n_words'))} words",
        "documents": _documents(counts, manifest),
        "running words": f"{_value(counts.get('n_tokens'))} of the vocabulary",
        **_kept_texts(manifest),
        **_continued(training),
        "dimension": _value(counts.get("dim")),
        "tokenizer": _tokenizer(manifest),
        **_prepared(manifest),
        "most frequent": ", ".join(frequent),
    }
    sections: dict[str, Mapping[str, Any]] = {
        "": about,
        "text": _text(corpus),
        "settings": {key: _value(value) for key, value in _mapping(manifest.get("config")).items()},
        "training": {
            key.replace("_", " "): _value(value)
            for key, value in training.items()
            if key not in ("epochs", "phases", "machine", "run", "continued")
        },
        "time": _times(_mapping(training.get("phases"))),
        "machine": _machine(_mapping(training.get("machine"))),
        f"files, {amount_text(sum(files.values()), 'bytes')}": {
            file: amount_text(size, "bytes") for file, size in files.items()
        },
    }
    return [*_headed(name, sections), *_loss_curve(training.get("epochs")), *_quality(quality)]


def encoding_card(manifest: Mapping[str, Any], name: str, *, sources: Sequence[str]) -> list[str]:
    """The card of an encoded corpus.

    Args:
        manifest: The manifest.
        name: The title of the card.
        sources: The names of the encoded sources.
    """
    counts, least = _mapping(manifest.get("counts")), _value(manifest.get("min_count"))
    corpus = {**_mapping(manifest.get("corpus")), "sources": list(sources)}
    files = {file: _mapping(facts).get("bytes", 0) for file, facts in _mapping(manifest.get("files")).items()}
    about = {
        "created": f"{manifest.get('created')} by jose-embed {manifest.get('package_version')}",
        "documents": _value(counts.get("n_documents")),
        "vocabulary": f"{_value(counts.get('n_words'))} words that occur at least {least} times",
        "running words": f"{_value(counts.get('n_tokens'))} of the vocabulary",
        "tokenizer": _tokenizer(manifest),
        **_prepared(manifest),
        "size": amount_text(sum(files.values()), "bytes"),
    }
    return _headed(name, {"": about, "text": _text(corpus)})


def _kept_texts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The row about texts and fields of documents in the model; none without any."""
    text = _mapping(manifest.get("text"))
    fields = text.get("fields")
    parts = ["the texts"] if "texts" in text else []
    parts += [f"fields ({', '.join(map(str, fields))})"] if isinstance(fields, list) and fields else []
    return {"contents": f"contains {' and '.join(parts)} of the documents; jose strip removes them"} if parts else {}


def _continued(training: Mapping[str, Any]) -> dict[str, str]:
    """The row about the model that was continued; none if there was none."""
    facts = _mapping(training.get("continued"))
    if not facts:
        return {}
    row = f"the model {str(facts.get('model'))[:12]} of {_value(facts.get('n_words'))} words"
    if carried := facts.get("carried_documents"):
        row += f"; the first {_value(carried)} documents have the vectors of that model"
    return {"continues": row}


def _headed(name: str, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sections that are not empty, with their titles."""
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


def _prepared(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The rows about Unicode form, segmenter and phrases."""
    text = _mapping(manifest.get("text"))
    segmenter, phrases = _mapping(text.get("segmenter")), _mapping(text.get("phrases"))
    versions = {name.replace("_", " "): value for name, value in segmenter.items() if name.endswith("_version")}
    rows = {"normalize": _value(text.get("normalisation", "")), "segmenter": _value(versions)}
    if phrases:
        first = phrases.get("first")
        such = f", such as {', '.join(map(str, first))}" if isinstance(first, list) and first else ""
        rows["phrases"] = f"{_value(phrases.get('number'))}{such}"
    if subwords := _mapping(text.get("subwords")):
        shortest, longest, buckets = (_value(subwords.get(name)) for name in ("shortest", "longest", "buckets"))
        rows["n-grams"] = f"of {shortest} to {longest} characters, {buckets} vectors: unknown words are composed"
    return {name: value for name, value in rows.items() if value}


def _text(corpus: Mapping[str, Any]) -> dict[str, str]:
    """The rows about the text, known entries first."""
    ordered = {key: corpus[key] for key in _TEXT_NAMES if key in corpus} | dict(corpus)
    rows = {_TEXT_NAMES.get(key, key): _value(value) for key, value in ordered.items()}
    if _is_number(corpus.get("n_bytes")):
        rows[_TEXT_NAMES["n_bytes"]] = amount_text(corpus["n_bytes"], "bytes")
    if isinstance(sources := corpus.get("sources"), list):  # a manifest names the first of very many only
        n_sources = corpus.get("n_sources")
        n = n_sources if isinstance(n_sources, int) and n_sources > len(sources) else len(sources)
        rows[_TEXT_NAMES["sources"]] = _listed(sources, n)
    return rows


def _times(phases: Mapping[str, Any]) -> dict[str, str]:
    """The time of each phase and its share."""
    known = {str(phase): float(seconds) for phase, seconds in phases.items() if _is_number(seconds)}
    total = sum(known.values())
    if total <= 0:
        return {}
    width = max(len(duration_text(seconds)) for seconds in [*known.values(), total])
    rows = {phase: f"{duration_text(seconds):>{width}}  {seconds / total:4.0%}" for phase, seconds in known.items()}
    return {**rows, "total": f"{duration_text(total):>{width}}"}


def _machine(facts: Mapping[str, Any]) -> dict[str, str]:
    shown = {key: _value(value) for key, value in facts.items() if key not in ("memory_bytes", "packages")}
    if _is_number(facts.get("memory_bytes")):
        shown["memory"] = amount_text(facts["memory_bytes"], "bytes")
    return shown | {str(name): str(version) for name, version in _mapping(facts.get("packages")).items()}


def _loss_curve(epochs: Any) -> list[str]:
    """Loss, share of active hinges, time and speed of at most 20 epochs, with a bar for the loss."""
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
    held_out = any(_is_number(epoch.get("held_out_loss")) for epoch in shown)
    lines = ["", "epochs", f"  epoch    loss{'  held out' if held_out else ''}  active        time     words/s"]
    for epoch in shown:
        active = f"{100 * epoch['active']:.1f}%" if _is_number(epoch.get("active")) else "?"
        seconds = duration_text(epoch["seconds"]) if _is_number(epoch.get("seconds")) else "?"
        speed = amount_text(epoch["words_per_second"]) if _is_number(epoch.get("words_per_second")) else "?"
        bar = "#" * round(_BAR * max(0.0, epoch["loss"] / largest)) if largest > 0 else ""
        loss = f"{epoch['loss']:.4f}"
        if held_out:
            loss += f"    {epoch['held_out_loss']:.4f}" if _is_number(epoch.get("held_out_loss")) else f"{'?':>10}"
        lines.append(f"  {epoch['epoch']:>5}  {loss}  {active:>6}  {seconds:>10}  {speed:>10}  {bar}")
    return lines


def _quality(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The saved evaluations, each with its title."""
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
    """Whether it is a finite number of a plausible size."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)
    )


def _documents(counts: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if counts.get("n_docs") == 0 and _mapping(manifest.get("config")).get("doc_vectors") == "none":
        return f"no vectors; {_value(_mapping(manifest.get('corpus')).get('n_documents'))} in the text"
    untrained = counts.get("n_untrained")
    note = f" ({_value(untrained)} without a word of the vocabulary)" if untrained else ""
    return f"{_value(counts.get('n_docs'))}{note}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return _listed(value, len(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 10**30 else "a number of more than 30 digits"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _listed(values: Sequence[Any], n: int) -> str:
    """The first five of n values, and the number of the others."""
    shown = [_value(value) for value in values[:5]]
    return ", ".join([*shown, *([f"and {n - len(shown):,} more"] if n > len(shown) else [])])
