"""``jose eval``: measure the quality of the vectors of a model."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import Command, add_model, add_number, option_names, positive_whole_number
from jose_embed.cli.text_options import add_text_options, read_documents
from jose_embed.errors import ConfigError

if TYPE_CHECKING:
    from jose_embed.analysis.tables import Table

_NO_MEASURE = "the measure is missing; name one of wordsim, analogy, classify, cluster, sts, search, isotropy, report"


def _configure(parser: argparse.ArgumentParser) -> None:
    measures = parser.add_subparsers(metavar="MEASURE", title="measures", dest="measure")
    summary = "Word similarity: Spearman correlation of cosines and human scores of word pairs."
    _files(_add(measures, "wordsim", summary), "PAIRS", "lines WORD<tab>WORD<tab>SCORE")

    summary = "Analogies: share of questions 'a is to b as c is to ?' that b - a + c answers (3CosAdd)."
    analogy = _add(measures, "analogy", summary)
    _files(analogy, "QUESTIONS", "lines of four words, sections start with a line ': NAME'")
    most = "use the N most frequent words only"
    add_number(analogy, "--max-rank", most)

    summary = "Classification: accuracy of k nearest neighbours and of logistic regression."
    classify = _add(measures, "classify", summary)
    _document_arguments(classify)
    _split_arguments(classify)
    classify.add_argument("--method", choices=("knn", "logistic"), help="use this method only (default: both)")

    summary = "Clustering: agreement of k-means clusters with classes (normalized mutual information and others)."
    cluster = _add(measures, "cluster", summary)
    _document_arguments(cluster)
    _seed_argument(cluster)
    number = "number of clusters (default: number of classes)"
    cluster.add_argument("--clusters", type=positive_whole_number, metavar="K", help=number)
    method = "k-means, or spherical k-means, by cosine (default: both)"
    cluster.add_argument("--method", choices=("kmeans", "spherical"), help=method)

    summary = "Sentence similarity: Spearman correlation of cosines and human scores of sentence pairs."
    _files(_add(measures, "sts", summary), "PAIRS", "lines SENTENCE<tab>SENTENCE<tab>SCORE")

    summary = "Search: rank of the relevant documents of a question (MAP, nDCG@10)."
    lines = "lines QUESTION<tab>IDS, the ids of the relevant documents separated by spaces"
    search = _add(measures, "search", summary)
    _files(search, "QUESTIONS", lines)
    search.add_argument(
        "--mode",
        choices=("hybrid", "vector", "words"),
        help="search in this way only (default: all that the model has)",
    )

    summary = "Isotropy: how evenly the vectors use all directions (mean cosine, effective rank, partition ratio)."
    _add(measures, "isotropy", summary)

    _configure_report(_add(measures, "report", "All of the above but isotropy for which files are given."))
    for measure in measures.choices.values():
        measure.set_defaults(options=option_names(measure))


def _configure_report(report: argparse.ArgumentParser) -> None:
    for name, kind in [
        ("wordsim", "word pairs"),
        ("analogy", "analogy questions"),
        ("sts", "sentence pairs"),
        ("search", "questions to documents"),
    ]:
        report.add_argument(f"--{name}", nargs="+", default=[], metavar="FILE", help=f"files of {kind}")
    _document_arguments(report, required=False)
    _split_arguments(report)
    _seed_argument(report)


def _files(measure: argparse.ArgumentParser, metavar: str, help: str) -> None:
    measure.add_argument("files", nargs="+", metavar=metavar, help=help)


def _add(measures: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = measures.add_parser(name, help=summary, description=summary)
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="also write the tables to a Markdown file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--save", action="store_true", help="also save the results in the model directory; jose info shows them"
    )
    return parser


def _document_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--labels",
        required=required,
        metavar="FILE",
        help="the class of each document, one per line",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="use inferred vectors of the documents of this file (default: the trained document vectors)",
    )
    add_text_options(parser.add_argument_group("the texts of --texts"), keeping=False)


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--train", "train on the first N documents and test on the others (default: cross-validation)")
    add_number(parser, "--folds", "folds of the cross-validation", 10)


def _seed_argument(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--seeds", "number of random starts", 3)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.measure is None:
        raise ConfigError(_NO_MEASURE)

    from jose_embed.model.embeddings import load
    from jose_embed.storage.atomic import atomic_file, check_output

    output = arguments.output
    if output is not None:
        check_output(output, _read_files(arguments), [arguments.model])
    model = load(arguments.model)
    # A file that cannot be written is refused here, before any work.
    with contextlib.nullcontext() if output is None else atomic_file(output, overwrite=arguments.overwrite) as write:
        tables: Sequence[Table] = _measured(model, arguments)
        markdown = "\n\n".join(table.to_markdown() for table in tables)
        if write is not None:
            write(f"# {Path(arguments.model).name}\n\nModel {model.id}\n\n{markdown}\n".encode())
    if arguments.save:
        from jose_embed.model.quality import save_quality

        save_quality(arguments.model, model.id, [table.to_dict() for table in tables])
    if arguments.json:
        print(json.dumps([table.to_dict() for table in tables], ensure_ascii=False, indent=2))
    else:
        print(markdown)


def _read_files(arguments: argparse.Namespace) -> list[str]:
    """The names of all files that a measure reads."""
    names: list[str] = []
    for option in ("files", "wordsim", "analogy", "sts", "search", "labels", "texts"):
        value = getattr(arguments, option, None) or []
        names += [value] if isinstance(value, str) else value
    return names


def _measured(model: Any, arguments: argparse.Namespace) -> Sequence[Table]:
    from jose_embed.analysis import tables
    from jose_embed.analysis.isotropy import isotropy_table

    match arguments.measure:
        case "wordsim":
            return [tables.word_similarity_table(model, arguments.files)]
        case "analogy":
            return [tables.analogy_table(model, arguments.files, max_rank=arguments.max_rank)]
        case "sts":
            return [tables.sentence_table(model, arguments.files)]
        case "search":
            return [tables.search_table(model, arguments.files, mode=arguments.mode)]
        case "isotropy":
            return [isotropy_table(model)]
        case "report":
            return _report(model, arguments)
    documents = tables.labelled_rows(model, arguments.labels, _texts(model, arguments))
    methods: Any = ("knn", "logistic") if arguments.measure == "classify" else ("kmeans", "spherical")
    if arguments.method:
        methods = (arguments.method,)
    if arguments.measure == "classify":
        return [tables.classification_table(documents, methods=methods, n_train=arguments.train, folds=arguments.folds)]
    n_clusters, n_seeds = arguments.clusters, arguments.seeds
    return [tables.clustering_table(documents, methods=methods, n_clusters=n_clusters, n_seeds=n_seeds)]


def _report(model: Any, arguments: argparse.Namespace) -> Sequence[Table]:
    from jose_embed.analysis.tables import report

    if arguments.texts is not None and arguments.labels is None:
        raise ConfigError("--texts needs --labels, the classes of these documents")
    return report(
        model,
        word_pairs=arguments.wordsim,
        analogies=arguments.analogy,
        sentence_pairs=arguments.sts,
        queries=arguments.search,
        labels=arguments.labels,
        texts=_texts(model, arguments),
        n_train=arguments.train,
        folds=arguments.folds,
        n_seeds=arguments.seeds,
    )


def _texts(model: Any, arguments: argparse.Namespace) -> list[str] | None:
    return None if arguments.texts is None else read_documents([arguments.texts], arguments, model)[1]


EVAL = Command(
    name="eval",
    summary="Measure quality: word similarity, analogies, classes, clusters, sentences, search, isotropy.",
    configure=_configure,
    run=_run,
    examples=(
        "jose eval wordsim corpus.jose ws353.tsv men.tsv",
        "jose eval classify corpus.jose --labels classes.txt --train 11314",
        "jose eval search corpus.jose questions.tsv",
        "jose eval report corpus.jose --wordsim ws353.tsv --labels classes.txt -o report.md --save",
    ),
)
