"""``jose classify``: fit, report, keep and apply a classifier of texts."""

from __future__ import annotations

import argparse
from pathlib import Path

from jose_embed.cli.command import Command, add_model, add_number
from jose_embed.cli.query import labels_of_all, print_json, print_table
from jose_embed.cli.text_options import add_text_options, read_documents
from jose_embed.cli.topics import add_formats, check_field, kept_texts, print_csv
from jose_embed.errors import ConfigError


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--labels", metavar="FILE", help="fit: the class of each document of the model, one per line")
    parser.add_argument("--field", metavar="NAME", help="fit: the class of each document is this kept field")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the fitted classifier in this JSON file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--load", type=Path, metavar="FILE", help="apply: the file of an earlier --save")
    parser.add_argument("--apply", nargs="+", metavar="TEXT", help="print the class of each document of these files")
    add_text_options(parser.add_argument_group("the texts of --apply"), keeping=False)
    add_number(parser, "--folds", "folds of the cross-validation of the report", 5)
    add_formats(parser)


def _run(arguments: argparse.Namespace) -> None:
    if sum(value is not None for value in (arguments.labels, arguments.field, arguments.load)) != 1:
        raise ConfigError("give exactly one of: --labels, --field (to fit a classifier), --load (to apply one)")
    if arguments.load is not None and (arguments.save is not None or not arguments.apply):
        raise ConfigError("--load applies a kept classifier; give it texts with --apply, and no --save")

    from jose_embed.analysis.classifier import cross_validation, fit_classifier, read_classifier
    from jose_embed.model.embeddings import load
    from jose_embed.storage.atomic import atomic_file, check_output

    if arguments.save is not None:
        read = [name for name in (arguments.labels, *(arguments.apply or ())) if name is not None]
        check_output(arguments.save, read, [arguments.model])
    model = load(arguments.model)
    if arguments.load is not None:
        classifier = read_classifier(arguments.load)
        if classifier.model_id != model.id:
            raise ConfigError(f"{arguments.load}: the classifier was fitted on another model; fit it on this one")
    else:
        model.require_documents()
        labels = _labels(arguments, model.n_docs)
        rows = [row for row, label in enumerate(labels) if label and model.doc_token_counts[row]]
        vectors, labels = model.doc_vectors[rows], [labels[row] for row in rows]
        if not arguments.apply:
            accuracy, reports = cross_validation(vectors, labels, folds=arguments.folds)
        classifier = fit_classifier(vectors, labels, model.id)
        if arguments.save is not None:
            with atomic_file(arguments.save, overwrite=arguments.overwrite) as write:
                write(classifier.to_bytes())
    if arguments.apply:
        ids, texts = read_documents(arguments.apply, arguments, model)
        found, known = model.infer_flagged(texts)
        probabilities = classifier.probabilities(found)
        best = probabilities.argmax(1).tolist()
        answers = [
            (id, classifier.classes[number] if is_known else "", float(row[number]) if is_known else 0.0)
            for id, number, is_known, row in zip(ids, best, known.tolist(), probabilities, strict=True)
        ]
        if arguments.json:
            print_json([{"id": id, "class": name or None, "probability": p} for id, name, p in answers])
        else:
            cells = [[id, f"{p:.4f}", name] for id, name, p in answers]
            (print_csv if arguments.csv else print_table)(["id", "probability", "class"], cells)
        return
    macro = sum(report.f1 for report in reports) / len(reports)
    if arguments.json:
        classes = [report._asdict() for report in reports]
        print_json({"accuracy": accuracy, "macro_f1": macro, "folds": arguments.folds, "classes": classes})
        return
    cells = [[str(r.n_documents), f"{r.precision:.3f}", f"{r.recall:.3f}", f"{r.f1:.3f}", r.name] for r in reports]
    (print_csv if arguments.csv else print_table)(["documents", "precision", "recall", "f1", "class"], cells)
    if not arguments.csv:
        print(f"\naccuracy {accuracy:.3f}, macro F1 {macro:.3f} ({arguments.folds}-fold cross-validation)")


def _labels(arguments: argparse.Namespace, n_docs: int) -> list[str]:
    """The label of each document; empty if a field has no value."""
    if arguments.labels is not None:
        labels = [line.strip() for line in labels_of_all([arguments.labels], n_docs)]
        if "" in labels:
            raise ConfigError(f"{arguments.labels}: line {labels.index('') + 1} is empty; every document needs a label")
        return labels
    store = kept_texts(arguments.model)
    check_field(arguments.field, store, n_docs)
    assert store is not None
    values = [kept.fields.get(arguments.field) for kept in store.read(range(n_docs))]
    return ["" if value is None else str(value) for value in values]


CLASSIFY = Command(
    name="classify",
    summary="Fit a classifier of texts to labels of the documents, report its accuracy, keep and apply it.",
    configure=_configure,
    run=_run,
    examples=(
        "jose classify corpus.jose --labels labels.txt",
        "jose classify corpus.jose --labels labels.txt --save classifier.json",
        "jose classify corpus.jose --load classifier.json --apply new.txt --csv",
    ),
)
