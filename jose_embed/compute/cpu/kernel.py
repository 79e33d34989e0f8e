"""The training kernel, compiled for one row length and one set of rules.

This module imports Numba; backend.py names it and leaves it to the first call to import it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64, uint32, uint64

from jose_embed.compute import sampling
from jose_embed.compute.cpu.simd import (
    active_bits,
    equal_bits,
    exponential,
    inverse_root,
    lane_sum,
    load_lanes,
    popcount,
    row_primitives,
    store_lanes,
    where_positive,
)
from jose_embed.compute.jit import jit
from jose_embed.compute.sampling import draw_below, draw_word, random_bits, stream_key
from jose_embed.compute.tables import DOCUMENT_BLOCK, LANES, PIECE
from jose_embed.config import NegativeStep, Objective

_N = LANES  # first slot of the negatives


# As uint64, not int: numba compiles a function anew for every int that it is called with as a constant.
_KEEP, _WINDOW = np.uint64(sampling.KEEP), np.uint64(sampling.WINDOW)


_CONTEXT, _DOCUMENT = np.uint64(sampling.CONTEXT_NEGATIVES), np.uint64(sampling.DOCUMENT_NEGATIVES)


def kernel(n_chunks: int, objective: Objective, negative_step: NegativeStep, frozen: int) -> Any:
    """The compiled trainer for one row length and one set of rules.

    Args:
        n_chunks: Row length in units of 16 floats.
        objective: "pairwise", "joint", "smooth" or "cross-entropy".
        negative_step: "paper" (1 + h) or "reference" (2 h).
        frozen: 1 for a kernel that moves no row and returns the loss alone, else 0.

    Returns:
        ``train(tables, text, sampling_tables, rules, private, scratch, documents, epoch, first_token)``, which trains
        documents in the order of ``text``, which holds them alone, and returns (loss, active, pairs, positions).
        ``documents`` are their rows, int64. ``first_token`` is how many running words, counted over all epochs, come
        before the first of them: the learning rate follows from it.
    """
    primitives = row_primitives(n_chunks)
    gather_products, step_rows, move_row = primitives.gather_products, primitives.step_rows, primitives.move_row
    add_rows, prefetch_row = primitives.add_rows, primitives.prefetch_row
    joint, smooth = objective != "pairwise", objective == "smooth"
    paper = negative_step == "paper"
    zero, half, one, two = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
    far = np.float32(1e9)  # from every product
    series_terms = (1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0)

    @jit(fastmath=True, inline=True)
    def pull(y: Any, count: Any, sign: Any, inverse_norm: Any, rate: Any) -> Any:
        # Towards the anchor for a positive (y = -f, sign 1), away from it for a negative (y = h, sign -1).
        if paper or sign > zero:
            return rate * count * (one + inverse_norm * y)
        return rate * count * (two * (inverse_norm * y))

    @jit(fastmath=True, inline=True)
    def sigmoid(x: Any) -> Any:
        # With e = e^-|x|, which does not overflow: 1 / (1 + e) in the lanes above zero, e / (1 + e) in the others.
        e = exponential(x - where_positive(x, two * x))
        return (where_positive(x, one - e) + e) / (one + e)

    @jit(fastmath=True, inline=True)
    def softplus(x: Any) -> Any:
        # log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|; log(1 + e) = 2 atanh(t), t = e / (2 + e) <= 1 / 3.
        e = exponential(x - where_positive(x, two * x))
        t = e / (two + e)
        square = t * t
        series = zero * t
        for term in series_terms:
            series = series * square + float32(term)
        return where_positive(x, x) + two * t * series

    @jit(inline=True)
    def all_bits(n_positives: Any, n_negatives: Any) -> Any:
        # The slots of all rows of a contrast.
        return ((uint64(1) << uint64(n_positives)) - uint64(1)) | (
            ((uint64(1) << uint64(n_negatives)) - uint64(1)) << uint64(_N)
        )

    @jit(fastmath=True, inline=True)
    def move_rows(
        s: Any, table: Any, moving: Any, measured: Any, anchors: Any, anchor: Any, inverse_norm: Any, h: Any
    ) -> Any:  # fmt: skip
        # A step is tangential, x + t (v - (x.v) x), so that a negative's length follows from h = x.v, unless the row
        # was moved after h was taken. Then it is measured, and so are positives, which are few, and rows whose step is
        # so long that it would multiply what rounding did to the length: no error adds up from step to step.
        towards = load_lanes(s.towards, _N)
        square = one / (inverse_norm * inverse_norm)  # of the anchor's length
        more = towards * towards * (square - h * h)  # not below zero but for rounding
        unit = inverse_root(one + where_positive(more, more))
        own = unit * load_lanes(s.own, _N)
        measured |= active_bits(own - float32(1.5)) << uint64(_N)
        store_lanes(s.own, _N, own)
        store_lanes(s.towards, _N, unit * towards)
        step_rows(table, s.rows, moving, anchors, anchor, s.own, s.towards, s.weight, s.moves, measured)

    # Inlined, because a call passes a hundred numbers.
    @jit(fastmath=True, inline=True)
    def hinges(
        s: Any, table: Any, n_positives: Any, n_negatives: Any, anchors: Any, anchor: Any,
        inverse_norm: Any, scale: Any, margin: Any, sharpness: Any, rate: Any, measured: Any,
    ) -> Any:  # fmt: skip
        # f, h: products of positives and negatives with the anchor, -f and h of absent ones so small that no hinge is
        # active; g: the hinge, in which -f and h stand alike; q: the step scale of the anchor. The loop is over the
        # fewer of the two kinds, those of the other kind are side by side in a register. A smooth hinge counts by its
        # slope p where the other counts as one.
        f = gather_products(table, s.rows, 0, n_positives, anchors, anchor, far)
        h = gather_products(table, s.rows, _N, n_negatives, anchors, anchor, -far)
        rest = one - scale * margin
        if n_positives < n_negatives:
            store_lanes(s.products, 0, zero - f)
            n, first, beside, others, sign = uint64(n_positives), uint64(0), h, uint64(_N), one
        else:
            store_lanes(s.products, 0, h)
            n, first, beside, others, sign = uint64(n_negatives), uint64(_N), zero - f, uint64(0), -one
        count = weight = losses = zero * beside
        moving = active = uint64(0)
        for i in range(n):
            y = s.products[i]
            g = (margin + y) + beside
            bits = active_bits(g)
            slot = first + i
            n_active = popcount(bits)
            active += n_active
            if smooth:
                p = sigmoid(sharpness * g)
                q = p * (scale * g + rest)
                count = count + p
                losses = losses + softplus(sharpness * g)
                strength = pull(y, lane_sum(p), sign, inverse_norm, rate)
            else:
                q = where_positive(g, scale * g + rest)  # 1 - scale (f - h)
                count = count + where_positive(g, one)
                losses = losses + where_positive(g, g)
                moving |= (bits << others) | (uint64(bits != uint64(0)) << slot)
                strength = pull(y, float32(n_active), sign, inverse_norm, rate)
            weight = weight + q
            s.own[slot] = one + strength * y
            s.towards[slot] = sign * strength
            s.weight[slot] = sign * rate * lane_sum(q)
        if smooth:
            moving = all_bits(n_positives, n_negatives)
            losses = losses / sharpness
        if frozen:
            moving = uint64(0)
        if moving != uint64(0):
            strengths = pull(beside, count, -sign, inverse_norm, rate)
            store_lanes(s.own, int64(others), one + strengths * beside)
            store_lanes(s.towards, int64(others), -sign * strengths)
            store_lanes(s.weight, int64(others), -sign * rate * weight)
            move_rows(s, table, moving, measured, anchors, anchor, inverse_norm, h)
        return lane_sum(losses), active, moving

    @jit(fastmath=True)
    def logistic(
        s: Any, table: Any, n_positives: Any, n_negatives: Any, anchors: Any, anchor: Any,
        inverse_norm: Any, scale: Any, margin: Any, sharpness: Any, rate: Any, measured: Any,
    ) -> Any:  # fmt: skip
        # The loss of a pair is a sum over its two rows, so each row has one term, times the rows of the other kind.
        f = gather_products(table, s.rows, 0, n_positives, anchors, anchor, far)
        h = gather_products(table, s.rows, _N, n_negatives, anchors, anchor, -far)
        times_positive, times_negative = float32(n_negatives), float32(n_positives)
        x, y = sharpness * (margin - f), sharpness * (h - margin)
        losses = (times_positive * softplus(x) + times_negative * softplus(y)) / sharpness
        active = popcount(active_bits(x)) * uint64(n_negatives)
        if frozen:
            return lane_sum(losses), active, uint64(0)
        p, q = times_positive * sigmoid(x), times_negative * sigmoid(y)
        strength = pull(zero - f, p, one, inverse_norm, rate)
        store_lanes(s.own, 0, one - strength * f)
        store_lanes(s.towards, 0, strength)
        store_lanes(s.weight, 0, rate * p * (one - scale * f))
        strength = pull(h, q, -one, inverse_norm, rate)
        store_lanes(s.own, _N, one + strength * h)
        store_lanes(s.towards, _N, zero - strength)
        store_lanes(s.weight, _N, zero - rate * q * (one + scale * h))
        moving = all_bits(n_positives, n_negatives)
        move_rows(s, table, moving, measured, anchors, anchor, inverse_norm, h)
        return lane_sum(losses), active, moving

    contrast = logistic if objective == "cross-entropy" else hinges

    @jit(inline=True)
    def row_of(private: Any, word: Any) -> Any:
        return word + (private.shift if word < private.n_words else uint32(0))

    @jit(inline=True)
    def draw_negatives(
        s: Any, center: Any, private: Any, samples: Any, key: Any, first: Any, begin: Any, end: Any
    ) -> Any:  # fmt: skip
        for e in range(begin, end):
            drawn = row_of(private, draw_word(samples, random_bits(key, first + e)))
            s.coming[e] = drawn
            prefetch_row(center, uint64(drawn))

    @jit(inline=True)
    def take_coming(s: Any, n_negatives: Any) -> Any:
        for e in range(n_negatives):
            s.drawn[e] = s.coming[e]
        repeated = uint64(0)  # the bits of those that stand before
        for e in range(n_negatives):
            repeated |= equal_bits(s.drawn, 0, s.drawn[e]) & ~((uint64(2) << uint64(e)) - uint64(1))
        return repeated

    @jit(fastmath=True)
    def train(
        tables: Any, text: Any, samples: Any, rules: Any, private: Any, s: Any, documents: Any, epoch: Any,
        first_token: Any,
    ) -> Any:  # fmt: skip
        # From here on a word is the index of its row: the worker's own copy if there is one.
        center, context, document_table = tables.center, tables.context, tables.document
        window, n_negatives, n_doc_negatives = rules.window, rules.negatives, rules.doc_negatives
        rows, drawn, kept = s.rows, s.drawn, s.kept
        share = -(-n_negatives // rules.positions_per_draw)
        loss = 0.0
        active = uint64(0)
        pairs = positions = int64(0)  # int64(0), not 0: see _KEEP
        for place in range(documents.shape[0]):
            document = documents[place]
            anchor = uint64(document)
            prefetch_row(document_table, anchor)
            number_in_text = document + rules.first_document
            keep_key = stream_key(rules.seed, epoch, number_in_text, _KEEP)
            window_key = stream_key(rules.seed, epoch, number_in_text, _WINDOW)
            context_key = stream_key(rules.seed, epoch, number_in_text, _CONTEXT)
            document_key = stream_key(rules.seed, epoch, number_in_text, _DOCUMENT)
            begin, end = text.offsets[place], text.offsets[place + 1]
            step_of_document = min(rules.longest_step, rules.visit / float32(max(end - begin, 1)))
            number = draw = int64(0)  # of the kept word, counted over the whole document; of its negatives
            draw_negatives(s, center, private, samples, context_key, 0, 0, n_negatives)
            repeated = take_coming(s, n_negatives)
            for piece in range(begin, end, PIECE):
                n = int64(0)
                for t in range(piece, min(end, piece + PIECE)):
                    word = uint32(text.tokens[t])
                    kept[n] = row_of(private, word)
                    n += int64(uint32(random_bits(keep_key, t - begin) >> uint64(32)) <= samples.keep[word])
                past = (first_token + piece) / rules.total_tokens
                rate = rules.learning_rate * float32(max(1.0 - past, 1e-4))
                context_rate = rate * rules.context_weight / float32(n_negatives)
                document_rate = rate * rules.doc_weight / float32(n_doc_negatives)
                for i in range(min(n, window + 1)):
                    prefetch_row(center, uint64(kept[i]))
                for i in range(n):
                    word = kept[i]
                    k = int64(0)
                    for e in range(n_negatives):
                        rows[_N + k] = drawn[e]
                        k += int64(drawn[e] != word)
                    again = repeated if k == n_negatives else ~uint64(0)
                    # A share of the next ones at each position: other loads wait behind the lines of many rows.
                    part = number - draw * rules.positions_per_draw
                    low, high = min(part * share, n_negatives), min((part + 1) * share, n_negatives)
                    draw_negatives(s, center, private, samples, context_key, (draw + 1) * n_negatives, low, high)
                    if part + 1 == rules.positions_per_draw:
                        draw += 1
                        repeated = take_coming(s, n_negatives)
                    if i + 1 < n:
                        prefetch_row(context, uint64(kept[i + 1]))
                    if i + 1 + window < n:
                        prefetch_row(center, uint64(kept[i + 1 + window]))
                    reach = 1 + int64(draw_below(random_bits(window_key, number), uint64(window)))
                    low, high = max(0, i - reach), min(n, i + reach + 1)
                    # A window of more than sixteen words is contrasted sixteen at a time.
                    at = low
                    while at < high:
                        m = int64(0)
                        while at < high and m < LANES:
                            rows[m] = kept[at]
                            m += int64(at != i)
                            at += 1
                        if m == 0 or k == 0:
                            continue
                        measured = again
                        for j in range(m):
                            measured |= equal_bits(rows, _N, rows[j])
                        measured = (measured << uint64(_N)) | all_bits(m, 0)
                        if joint:
                            square = add_rows(s.mixed, context, uint64(word), document_table, anchor)
                            norm = np.sqrt(max(square, float32(1e-6)))
                            step = contrast(
                                s, center, m, k, s.mixed, uint64(0), one / norm, half, rules.margin, rules.sharpness,
                                context_rate, measured,
                            )  # fmt: skip
                            if step[2] != uint64(0):
                                move_row(context, uint64(word), s.moves, uint64(0), one)
                                move_row(document_table, anchor, s.moves, uint64(0), step_of_document)
                        else:
                            step = contrast(
                                s, center, m, k, context, uint64(word), one, one, rules.margin, rules.sharpness,
                                context_rate, measured,
                            )  # fmt: skip
                            if step[2] != uint64(0):
                                move_row(context, uint64(word), s.moves, uint64(0), one)
                        loss += step[0]
                        active += step[1]
                        pairs += m * k
                    number += 1
                    if not joint and (number % DOCUMENT_BLOCK == 0 or i == n - 1):
                        m = (number - 1) % DOCUMENT_BLOCK + 1
                        m = min(m, i + 1)
                        for j in range(m):
                            rows[j] = kept[i + 1 - m + j]
                        for e in range(n_doc_negatives):
                            bits = random_bits(document_key, (number - 1) // DOCUMENT_BLOCK * n_doc_negatives + e)
                            rows[_N + e] = row_of(private, draw_word(samples, bits))
                        step = contrast(
                            s, center, m, n_doc_negatives, document_table, anchor, one, one, rules.margin,
                            rules.sharpness, document_rate, ~uint64(0),
                        )  # fmt: skip
                        if step[2] != uint64(0):
                            move_row(document_table, anchor, s.moves, uint64(0), one)
                        loss += step[0]
                        active += step[1]
                        pairs += m * n_doc_negatives
                positions += n
        return loss, int64(active), pairs, positions

    return train
