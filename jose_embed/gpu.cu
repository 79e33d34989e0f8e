// The GPU backend's kernels: the CPU kernel of cpu.py again, a warp in the place of a worker.
//
// The steps and their names are those of cpu.py and sampling.py, in their order; the formulas stand there. A warp takes a
// stretch of a document and walks along its words as a worker does: draw, gather the products, hinges and step scales,
// then every row moves once. A row is spread over the lanes of the warp, four floats to a lane; lane l of every warp
// touches the same floats of a row, so that nothing is exchanged between lanes but sums. Rows are read past the first
// cache, which other processors' writes do not reach, and written back at once: they are in flight for one contrast and
// no longer. Word rows are shared by all warps without locks, as on the CPU.
//
// Kernels:
//     thin              the running words of each document that are kept, side by side
//     train             contrasts; a warp takes the next stretch when it is done with one
//     write_directions  weighted mean directions of documents (directions.py), to the bit
//
// Given at compile time:
//     ROW     floats of a row, a multiple of 16
//     JOINT   1 for the joint objective, 0 for pairwise
//     PAPER   1 for the paper's step of a negative, 1 + h, and 0 for 2 h
//     DOCUMENT_BLOCK, PIECE  as in cpu.py
//     STRETCH  kept words of a document that a warp takes at a time
//     STAGED  rows of a contrast that shared memory holds between products and steps; 0: they are read twice
//     STAGED_POSITIVES  how many of them are positives
//
// A host compiler accepts this file behind tests/gpu_shim.h, with warps of one lane or of 32.

#ifndef WARP
#define WARP 32
#endif
#ifndef SHARED
#define SHARED(type, name) __shared__ type name
#endif
#ifndef STAGED
#define STAGED 0
#define STAGED_POSITIVES 0
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define LANES 16           // the most positives, and the most negatives, of a contrast
#define QUARTERS (ROW / 4)  // a row as float4
#define PARTS ((QUARTERS + WARP - 1) / WARP)
#define GROUP (PARTS > 6 ? 1 : PARTS > 4 ? 2 : PARTS > 1 ? 4 : 8)  // rows that are in registers at a time
#define EVERY_LANE 0xffffffffu

#ifdef __CUDA_ARCH__
__device__ __forceinline__ void prefetch_l2(const void *place) { asm volatile("prefetch.global.L2 [%0];" ::"l"(place)); }
#endif

enum { KEEP = 1, WINDOW = 2, CONTEXT_NEGATIVES = 3, DOCUMENT_NEGATIVES = 4 };

// What the host fills in, field by field as in gpu_device.py.

struct Chunk {
    float *center, *context, *document;  // the vectors
    const u32 *keep, *threshold, *alias;  // the sampling tables
    u64 n_words;
    u64 seed, epoch;
    float context_weight, doc_weight, margin;
    int window, negatives, doc_negatives;
    const int *tokens;     // the running words of the chunk's documents
    const i64 *offsets;    // where each document begins
    const i64 *documents;  // their rows
    const i64 *pieces;     // of each document, its first piece
    const float *rates;    // of each piece
    const float *steps;    // of each document, how far its row moves, in steps of the context row
    const int *places;     // of each piece, its document
    const int *stretches;  // of each stretch, its piece
    const int *starts;     // of each stretch, its first kept word
    i64 n_documents, n_stretches;
    u32 *kept;     // of each piece, its kept words, from its beginning on
    int *n_kept;   // of each piece
    i64 *numbers;  // of each piece, the document's kept words before it
    int *next;     // the next document to thin out, the next stretch to train
    double *loss;
    u64 *counts;  // active, pairs, positions
};

struct Lines {
    const float *center, *context;
    double context_share;  // how much of its context row is taken from each word's vector
    const int *tokens;
    const i64 *offsets;
    const double *word_weights, *term_weights, *matrix;
    i64 n_words, n_documents;
    int n_term_weights, n_matrix;
    int *occurrences;  // zeros, n_words for each warp
    int *next;
    float *directions;
    unsigned char *found;  // of each document, whether it has a direction
};

// ---- samples (sampling.py) ------------------------------------------------------------------------------------------

#define GOLDEN 0x9E3779B97F4A7C15ull

__device__ __forceinline__ u64 mixed(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

__device__ __forceinline__ u64 stream_key(u64 seed, u64 epoch, u64 document, u64 stream) {
    u64 key = mixed(seed + GOLDEN);
    key = mixed(key ^ (epoch + 1) * GOLDEN);
    return mixed(key ^ (document * 8 + stream) * GOLDEN);
}

__device__ __forceinline__ u64 random_bits(u64 key, u64 index) { return mixed(key + (index + 1) * GOLDEN); }

__device__ __forceinline__ u64 draw_below(u64 bits, u64 limit) { return ((bits >> 32) * limit) >> 32; }

__device__ __forceinline__ u32 draw_word(const Chunk &c, u64 bits) {
    const u64 column = draw_below(bits, c.n_words);
    return (u32)bits < c.threshold[column] ? (u32)column : c.alias[column];
}

// ---- rows and warps (simd.py) ---------------------------------------------------------------------------------------

__device__ __forceinline__ int lane() { return (int)threadIdx.x; }

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) x += __shfl_xor_sync(EVERY_LANE, x, other);
    return x;
}

__device__ __forceinline__ u32 warp_or(u32 x) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) x |= __shfl_xor_sync(EVERY_LANE, x, other);
    return x;
}

// The next piece of work: a number from 0 up that no other warp gets.
__device__ __forceinline__ int take(int *next) {
    int taken = 0;
    if (lane() == 0) taken = atomicAdd(next, 1);
    return __shfl_sync(EVERY_LANE, taken, 0);
}

// A lane's share of a row.
struct Row {
    float4 part[PARTS];
};

__device__ __forceinline__ bool holds(int part) { return part * WARP + lane() < QUARTERS; }

__device__ __forceinline__ Row zero_row() {
    Row x;
#pragma unroll
    for (int p = 0; p < PARTS; p++) x.part[p] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return x;
}

__device__ __forceinline__ Row load_row(const float *table, u64 row) {
    const float4 *place = reinterpret_cast<const float4 *>(table + row * ROW);
    Row x = zero_row();
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (holds(p)) x.part[p] = __ldcg(place + p * WARP + lane());
    return x;
}

__device__ __forceinline__ void store_row(float *table, u64 row, const Row &x) {
    float4 *place = reinterpret_cast<float4 *>(table + row * ROW);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (holds(p)) __stcg(place + p * WARP + lane(), x.part[p]);
}

// Called by single lanes: ask for a row that will be read soon.
__device__ __forceinline__ void prefetch_row(const float *table, u64 row) {
    const char *place = reinterpret_cast<const char *>(table + row * ROW);
#pragma unroll
    for (int line = 0; line < ROW * 4; line += 128) prefetch_l2(place + line);
}

// a x + b y
__device__ __forceinline__ Row combined(float a, const Row &x, float b, const Row &y) {
    Row z;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        z.part[p].x = a * x.part[p].x + b * y.part[p].x;
        z.part[p].y = a * x.part[p].y + b * y.part[p].y;
        z.part[p].z = a * x.part[p].z + b * y.part[p].z;
        z.part[p].w = a * x.part[p].w + b * y.part[p].w;
    }
    return z;
}

// This lane's share of x.y.
__device__ __forceinline__ float share_of_product(const Row &x, const Row &y) {
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        sum += x.part[p].x * y.part[p].x;
        sum += x.part[p].y * y.part[p].y;
        sum += x.part[p].z * y.part[p].z;
        sum += x.part[p].w * y.part[p].w;
    }
    return sum;
}

__device__ __forceinline__ float product(const Row &x, const Row &y) { return warp_sum(share_of_product(x, y)); }

// ---- a contrast (cpu.py) --------------------------------------------------------------------------------------------

// What the lanes of a warp share: positives from slot 0, negatives from slot 16.
struct Slots {
    u32 rows[2 * LANES];
    u32 coming[LANES];           // the negatives of the next position, on their way into the cache
    u32 coming_document[LANES];  // those of the document's next words
    float products[2 * LANES];
    float own[2 * LANES];      // what a row keeps of itself
    float towards[2 * LANES];  // what it takes of the anchor
    float weight[2 * LANES];   // with what weight it moves the anchor
#if STAGED
    float4 staged[STAGED][QUARTERS];
#endif
};

// What this lane has seen of hinges; pairs and positions are the same on all lanes.
struct Seen {
    double loss;
    u64 active, pairs, positions;
};

#if STAGED
__device__ __forceinline__ float4 *staged_row(Slots &s, int slot) {
    return s.staged[slot < LANES ? slot : STAGED_POSITIVES + slot - LANES];
}
#endif

// The products of all slots' rows with the anchor. Every lane keeps its share of the rows for the steps.
__device__ __forceinline__ void gather_products(
    Slots &s, const float *table, int n_positives, int n_negatives, const Row &anchor
) {
    const int n = n_positives + n_negatives;
    for (int first = 0; first < n; first += GROUP) {
        Row x[GROUP];
        float sums[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            const int r = first + g, slot = r < n_positives ? r : LANES + r - n_positives;
            x[g] = r < n ? load_row(table, s.rows[slot]) : zero_row();
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) sums[g] = share_of_product(x[g], anchor);
#pragma unroll
        for (int other = WARP / 2; other > 0; other /= 2)
#pragma unroll
            for (int g = 0; g < GROUP; g++) sums[g] += __shfl_xor_sync(EVERY_LANE, sums[g], other);
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            const int r = first + g, slot = r < n_positives ? r : LANES + r - n_positives;
            if (r < n) {
                if (lane() == 0) s.products[slot] = sums[g];
#if STAGED
                float4 *place = staged_row(s, slot);
#pragma unroll
                for (int p = 0; p < PARTS; p++)
                    if (holds(p)) place[p * WARP + lane()] = x[g].part[p];
#endif
            }
        }
    }
}

// Move the rows whose bits are set, in the order of their slots; the weighted sum of them, before, is given back. A row
// that stands in an earlier slot too is read again: it is moved twice.
__device__ __forceinline__ Row step_rows(Slots &s, float *table, u32 moving, u32 repeated, const Row &anchor) {
    Row total = zero_row();
    while (moving) {
        int slots[GROUP], n = 0;
        bool full = false;
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            slots[g] = 0;
            const int slot = __ffs((int)moving) - 1;
            full = full || moving == 0 || (g > 0 && (repeated >> slot & 1));
            if (!full) {
                slots[g] = slot;
                moving &= moving - 1;
                n = g + 1;
            }
        }
        Row y[GROUP];
        float squares[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            if (g < n) {
                Row x;
#if STAGED
                if (repeated >> slots[g] & 1) {
                    x = load_row(table, s.rows[slots[g]]);
                } else {
                    const float4 *place = staged_row(s, slots[g]);
                    x = zero_row();
#pragma unroll
                    for (int p = 0; p < PARTS; p++)
                        if (holds(p)) x.part[p] = place[p * WARP + lane()];
                }
#else
                x = load_row(table, s.rows[slots[g]]);
#endif
                total = combined(1.0f, total, s.weight[slots[g]], x);
                y[g] = combined(s.own[slots[g]], x, s.towards[slots[g]], anchor);
            } else {
                y[g] = zero_row();
            }
            squares[g] = share_of_product(y[g], y[g]);
        }
#pragma unroll
        for (int other = WARP / 2; other > 0; other /= 2)
#pragma unroll
            for (int g = 0; g < GROUP; g++) squares[g] += __shfl_xor_sync(EVERY_LANE, squares[g], other);
#pragma unroll
        for (int g = 0; g < GROUP; g++)
            if (g < n) store_row(table, s.rows[slots[g]], combined(rsqrtf(squares[g]), y[g], 0.0f, y[g]));
    }
    return total;
}

// x <- R(scale times the part of y that is tangent at x); the moved row is given back.
__device__ __forceinline__ Row move_row(float *table, u64 row, const Row &x, const Row &y, float scale) {
    const float along = 1.0f - scale * product(x, y);  // x + (y - (x.y) x) = (1 - x.y) x + y
    const Row moved = combined(along, x, scale, y);
    const Row unit = combined(rsqrtf(product(moved, moved)), moved, 0.0f, moved);
    store_row(table, row, unit);
    return unit;
}

// Bits of the slots whose row stands in an earlier slot.
__device__ __forceinline__ u32 repetitions(const Slots &s, int n_positives, int n_negatives) {
    u32 repeated = 0;
    const int n = n_positives + n_negatives;
    for (int r = lane(); r < n; r += WARP) {
        const int slot = r < n_positives ? r : LANES + r - n_positives;
        for (int earlier = 0; earlier < r; earlier++)
            if (s.rows[earlier < n_positives ? earlier : LANES + earlier - n_positives] == s.rows[slot])
                repeated |= 1u << slot;
    }
    return repeated;
}

// Contrast the rows in the slots with an anchor; whether a hinge was active, and then by what the anchor moves. f, h:
// products of positives and negatives with the anchor; g: the hinge; q: the step scale of the anchor.
__device__ __forceinline__ bool contrast(
    Slots &s, Seen &seen, float *table, int n_positives, int n_negatives, const Row &anchor, float inverse_norm,
    float scale, float margin, float rate, Row &moves
) {
    __syncwarp();  // the rows stand in their slots
    gather_products(s, table, n_positives, n_negatives, anchor);
    __syncwarp();
    const float rest = 1.0f - scale * margin;
    u32 moving = 0;
    for (int slot = lane(); slot < 2 * LANES; slot += WARP) {
        if (slot < n_positives) {
            const float f = s.products[slot];
            float count = 0.0f, weight = 0.0f, loss = 0.0f;
            for (int e = 0; e < n_negatives; e++) {
                const float g = (margin + s.products[LANES + e]) - f;
                if (!(g <= 0.0f)) {  // a NaN counts as active, so that it reaches the loss
                    count += 1.0f;
                    weight += scale * g + rest;  // q = 1 - scale (f - h)
                    loss += g;
                }
            }
            if (count > 0.0f) {
                const float b = rate * count * (1.0f - inverse_norm * f);
                s.own[slot] = 1.0f - b * f;
                s.towards[slot] = b;
                s.weight[slot] = rate * weight;
                moving |= 1u << slot;
                seen.loss += loss;
                seen.active += (u64)count;
            }
        } else if (slot >= LANES && slot < LANES + n_negatives) {
            const float h = s.products[slot], x = h * inverse_norm;
            float count = 0.0f, weight = 0.0f;
            for (int j = 0; j < n_positives; j++) {
                const float g = (margin + h) - s.products[j];
                if (!(g <= 0.0f)) {
                    count += 1.0f;
                    weight += scale * g + rest;
                }
            }
            if (count > 0.0f) {
                const float away = rate * count * (PAPER ? 1.0f + x : 2.0f * x);
                s.own[slot] = 1.0f + away * h;
                s.towards[slot] = -away;
                s.weight[slot] = -rate * weight;
                moving |= 1u << slot;
            }
        }
    }
    moving = warp_or(moving);
    if (moving) {
        const u32 repeated = warp_or(repetitions(s, n_positives, n_negatives));
        __syncwarp();
        moves = step_rows(s, table, moving, repeated, anchor);
    }
    __syncwarp();  // the slots are free again
    return moving != 0;
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// The words of each document that are not thinned out, piece by piece.
extern "C" __global__ void thin(const Chunk *chunk) {
    const Chunk c = *chunk;
    for (i64 place = take(c.next); place < c.n_documents; place = take(c.next)) {
        const i64 begin = c.offsets[place], end = c.offsets[place + 1];
        const u64 key = stream_key(c.seed, c.epoch, (u64)c.documents[place], KEEP);
        i64 number = 0, piece = c.pieces[place];
        for (i64 from = begin; from < end; from += PIECE, piece++) {
            const i64 to = end < from + PIECE ? end : from + PIECE;
            int n = 0;
            for (i64 block = from; block < to; block += WARP) {
                const i64 t = block + lane();
                const u32 word = t < to ? (u32)c.tokens[t] : 0;
                const bool keeps = t < to && (u32)(random_bits(key, (u64)(t - begin)) >> 32) <= c.keep[word];
                const u32 keeping = __ballot_sync(EVERY_LANE, keeps);
                if (keeps) c.kept[from + n + __popc(keeping & ((1u << lane()) - 1u))] = word;
                n += __popc(keeping);
            }
            if (lane() == 0) {
                c.n_kept[piece] = n;
                c.numbers[piece] = number;
            }
            number += n;
        }
    }
}

// The n negatives of a contrast that is to come, by its number in the stream of the key.
__device__ __forceinline__ void draw_coming(u32 *coming, const Chunk &c, int n, u64 key, i64 number) {
    for (int e = lane(); e < n; e += WARP) {
        const u32 drawn = draw_word(c, random_bits(key, (u64)(number * n + e)));
        coming[e] = drawn;
        prefetch_row(c.center, drawn);
    }
    __syncwarp();
}

// One stretch of a document; see cpu.py's train.
__device__ __forceinline__ void train_stretch(Slots &s, Seen &seen, const Chunk &c, i64 stretch) {
    const i64 piece = c.stretches[stretch], place = c.places[piece];
    const u64 document = (u64)c.documents[place];
    const i64 first = c.starts[stretch], n = c.n_kept[piece];
    const i64 last = n < first + STRETCH ? n : first + STRETCH;
    if (first >= last) return;
    const u32 *kept = c.kept + c.offsets[place] + (piece - c.pieces[place]) * PIECE;
    const u64 window_key = stream_key(c.seed, c.epoch, document, WINDOW);
    const u64 context_key = stream_key(c.seed, c.epoch, document, CONTEXT_NEGATIVES);
    const float context_rate = c.rates[piece] * c.context_weight / (float)c.negatives;
#if JOINT
    const float document_step = c.steps[place];
#else
    const u64 document_key = stream_key(c.seed, c.epoch, document, DOCUMENT_NEGATIVES);
    const float document_rate = c.rates[piece] * c.doc_weight / (float)c.doc_negatives;
#endif
    i64 number = c.numbers[piece] + first;  // of the kept word, counted over the whole document
    if (lane() == 0) prefetch_row(c.document, document);
    for (i64 t = first + lane(); t < n && t <= first + c.window; t += WARP) prefetch_row(c.center, kept[t]);
    draw_coming(s.coming, c, c.negatives, context_key, number);
#if !JOINT
    draw_coming(s.coming_document, c, c.doc_negatives, document_key, number / DOCUMENT_BLOCK);
#endif
    Row moves;
    for (i64 i = first; i < last; i++) {
        const u32 word = kept[i];
        int k = 0;
        for (int e = 0; e < c.negatives; e++) {
            const u32 drawn = s.coming[e];
            s.rows[LANES + k] = drawn;  // every lane writes the same
            k += drawn != word;
        }
        __syncwarp();
        draw_coming(s.coming, c, c.negatives, context_key, number + 1);
        if (lane() == 0) {
            if (i + 1 < n) prefetch_row(c.context, kept[i + 1]);
            if (i + 1 + c.window < n) prefetch_row(c.center, kept[i + 1 + c.window]);
        }
        const i64 reach = 1 + (i64)draw_below(random_bits(window_key, (u64)number), (u64)c.window);
        const i64 low = i > reach ? i - reach : 0, high = n < i + reach + 1 ? n : i + reach + 1;
        const i64 n_around = high - low - 1;
        if (k > 0 && n_around > 0) {
            Row v = load_row(c.context, word);
#if JOINT
            Row d = load_row(c.document, document);
#endif
            // A window of more than sixteen words is contrasted sixteen at a time.
            for (i64 at = 0; at < n_around; at += LANES) {
                const int m = n_around - at < LANES ? (int)(n_around - at) : LANES;
                for (int j = lane(); j < m; j += WARP) {
                    const i64 t = low + at + j;
                    s.rows[j] = kept[t + (t >= i)];
                }
#if JOINT
                const Row sum = combined(1.0f, v, 1.0f, d);
                const float norm = sqrtf(fmaxf(2.0f + 2.0f * product(v, d), 1e-6f));
                if (contrast(s, seen, c.center, m, k, sum, 1.0f / norm, 0.5f, c.margin, context_rate, moves)) {
                    v = move_row(c.context, word, v, moves, 1.0f);
                    d = move_row(c.document, document, d, moves, document_step);
                }
#else
                if (contrast(s, seen, c.center, m, k, v, 1.0f, 1.0f, c.margin, context_rate, moves))
                    v = move_row(c.context, word, v, moves, 1.0f);
#endif
                seen.pairs += (u64)(m * k);
            }
        }
        number += 1;
#if !JOINT
        if (number % DOCUMENT_BLOCK == 0 || i == n - 1) {
            const i64 before = (number - 1) % DOCUMENT_BLOCK;
            const int m = (int)(before < i ? before : i) + 1;
            for (int j = lane(); j < m; j += WARP) s.rows[j] = kept[i + 1 - m + j];
            for (int e = lane(); e < c.doc_negatives; e += WARP) s.rows[LANES + e] = s.coming_document[e];
            __syncwarp();
            draw_coming(s.coming_document, c, c.doc_negatives, document_key, number / DOCUMENT_BLOCK);
            const Row d = load_row(c.document, document);
            if (contrast(s, seen, c.center, m, c.doc_negatives, d, 1.0f, 1.0f, c.margin, document_rate, moves))
                move_row(c.document, document, d, moves, 1.0f);
            seen.pairs += (u64)(m * c.doc_negatives);
        }
#endif
    }
    seen.positions += (u64)(last - first);
}

extern "C" __global__ void train(const Chunk *chunk) {
    SHARED(Slots, s);
    const Chunk c = *chunk;
    Seen seen = {0.0, 0, 0, 0};
    for (i64 stretch = take(c.next + 1); stretch < c.n_stretches; stretch = take(c.next + 1))
        train_stretch(s, seen, c, stretch);
    const double loss = warp_sum(seen.loss);
    const u64 active = warp_sum(seen.active);
    if (lane() == 0) {
        atomicAdd(c.loss, loss);
        atomicAdd(c.counts, active);
        atomicAdd(c.counts + 1, seen.pairs);
        atomicAdd(c.counts + 2, seen.positions);
    }
}

struct Directions {
    double total[ROW], turned[ROW];
};

// A word's number u less a share of its context row's v.
__device__ __forceinline__ double without(float u, float v, double share) {
    return share == 0.0 ? (double)u : __dadd_rn((double)u, -__dmul_rn(share, (double)v));
}

// Weighted mean directions (directions.py), the same bytes: products are rounded before they are added, in double, in
// the order of the words' first occurrence.
extern "C" __global__ void write_directions(const Lines *lines) {
    SHARED(Directions, s);
    const Lines c = *lines;
    int *occurrences = c.occurrences + (i64)blockIdx.x * c.n_words;
    for (i64 document = take(c.next); document < c.n_documents; document = take(c.next)) {
        const i64 begin = c.offsets[document], end = c.offsets[document + 1];
        for (i64 t = begin + lane(); t < end; t += WARP) atomicAdd(occurrences + c.tokens[t], 1);
        __syncwarp();
        double total[PARTS][4];
#pragma unroll
        for (int p = 0; p < PARTS; p++)
#pragma unroll
            for (int q = 0; q < 4; q++) total[p][q] = 0.0;
        for (i64 block = begin; block < end; block += WARP) {
            const i64 t = block + lane();
            const int word = t < end ? c.tokens[t] : -1;
            const u32 same = __match_any_sync(EVERY_LANE, word);
            double weight = 0.0;
            int n = 0;
            if (t < end && __ffs((int)same) - 1 == lane()) n = atomicExch(occurrences + word, 0);
            if (n) {
                const double term = c.term_weights[n < c.n_term_weights ? n : c.n_term_weights - 1];
                const double *of_word = c.word_weights + 2 * (i64)word;  // by presence and for the topic
                weight = __dadd_rn(of_word[0], __dmul_rn(of_word[1], term));
            }
            u32 counting = __ballot_sync(EVERY_LANE, n > 0);
            while (counting) {
                const int from = __ffs((int)counting) - 1;
                counting &= counting - 1;
                const double factor = __shfl_sync(EVERY_LANE, weight, from);
                const u64 row = (u64)__shfl_sync(EVERY_LANE, word, from);
                const Row u = load_row(c.center, row), v = load_row(c.context, row);
#pragma unroll
                for (int p = 0; p < PARTS; p++) {
                    total[p][0] = __dadd_rn(total[p][0], __dmul_rn(factor, without(u.part[p].x, v.part[p].x, c.context_share)));
                    total[p][1] = __dadd_rn(total[p][1], __dmul_rn(factor, without(u.part[p].y, v.part[p].y, c.context_share)));
                    total[p][2] = __dadd_rn(total[p][2], __dmul_rn(factor, without(u.part[p].z, v.part[p].z, c.context_share)));
                    total[p][3] = __dadd_rn(total[p][3], __dmul_rn(factor, without(u.part[p].w, v.part[p].w, c.context_share)));
                }
            }
        }
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            if (holds(p))
#pragma unroll
                for (int q = 0; q < 4; q++) s.total[4 * (p * WARP + lane()) + q] = total[p][q];
        __syncwarp();
        if (c.n_matrix) {
            for (int i = lane(); i < c.n_matrix; i += WARP) {
                double sum = 0.0;
                for (int k = 0; k < c.n_matrix; k++)
                    sum = __dadd_rn(sum, __dmul_rn(s.total[k], c.matrix[(i64)k * c.n_matrix + i]));
                s.turned[i] = sum;
            }
            __syncwarp();
            for (int i = lane(); i < c.n_matrix; i += WARP) s.total[i] = s.turned[i];
            __syncwarp();
        }
        double square = 0.0;
        for (int i = 0; i < ROW; i++) square = __dadd_rn(square, __dmul_rn(s.total[i], s.total[i]));
        const bool found = square > 0.0;
        if (found) {
            const double length = __dsqrt_rn(square);
            for (int i = lane(); i < ROW; i += WARP)
                c.directions[document * ROW + i] = (float)__ddiv_rn(s.total[i], length);
        }
        if (lane() == 0) c.found[document] = found;
        __syncwarp();
    }
}
