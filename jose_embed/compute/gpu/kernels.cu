// The GPU backend's kernels: the algorithm of cpu/kernel.py, with a warp for each worker.
//
// The steps and their names are those of cpu/kernel.py and sampling.py; the formulas are in cpu/backend.py. A warp takes a
// stretch of a document and processes its words like a CPU worker: draw, compute the products, hinges and step scales,
// then move every row once. All warps share the word rows without locks, as on the CPU. Rows are read past the L1 cache,
// which does not see the writes of other multiprocessors, and are written back at once.
//
// The kernel is bound by instruction fetches, so all contrasts share one piece of code, in loops that are not unrolled. A
// row is distributed over lanes in two ways. To copy and move it, every lane of the warp holds four floats of it, and
// lanes exchange nothing. To compute its product, a team of a few lanes holds it, so that one reduction over the team
// serves several rows. The norm of a moved row follows from its product with the anchor; only a row that moves twice in a
// contrast is summed again.
//
// Kernels:
//     thin              the words of each document that subsampling keeps, side by side
//     train             contrasts; a warp takes the next stretch when it is done with one
//     merge             averages the copies of the most frequent words' center rows
//     write_directions  weighted mean directions of documents (cpu/directions_kernel.py), to the bit
//
// Given at compile time:
//     ROW     floats of a row, a multiple of 16
//     JOINT   1 for the joint objective, 0 for pairwise
//     PAPER   1 for the paper's step of a negative, 1 + h; 0 for 2 h
//     DOCUMENT_BLOCK, PIECE  as in tables.py
//     STRETCH  kept words of a document that a warp takes at a time
//     RING    slots of the ring buffer of drawn negatives: two draws, and one of a warp
//     STAGED  rows of a contrast that shared memory holds between products and steps; 0: rows are read twice
//     WORDS   slots of the buffer of kept words in shared memory, a power of two; 0: they are read from global memory
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
#endif
#ifndef WORDS
#define WORDS 0
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define LANES 16              // the most positives, and the most negatives, of a contrast
#define QUARTERS (ROW / 4)    // a row as float4
#define PARTS ((QUARTERS + WARP - 1) / WARP)
#define HALVES (ROW / 2)      // a row as float2
#define AT_MOST(x, y) ((x) < (y) ? (x) : (y))
#define TEAM AT_MOST(ROW <= 160 ? 8 : ROW <= 320 ? 16 : 32, WARP)  // lanes that take a product
#define TEAM_PARTS ((HALVES + TEAM - 1) / TEAM)
#define ALWAYS_CACHED 1024    // number of most frequent words whose rows always stay in the L2 cache
#define AT_ONCE (PARTS > 4 ? 1 : PARTS > 1 ? 2 : 4)  // rows that a lane has in flight while it copies and moves them
#define EVERY_LANE 0xffffffffu

#ifdef __CUDA_ARCH__
__device__ __forceinline__ void prefetch_l2(const void *place) { asm volatile("prefetch.global.L2 [%0];" ::"l"(place)); }

#if __CUDA_ARCH__ >= 800
// Start a copy into shared memory, past the L1 cache; wait_for_copies() waits for all copies this lane has started.
__device__ __forceinline__ void start_copy(float4 *to, const float4 *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}

__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
__device__ __forceinline__ void start_copy(float4 *to, const float4 *from) { *to = __ldcg(from); }

__device__ __forceinline__ void wait_for_copies() {}
#endif
#endif

enum { KEEP = 1, WINDOW = 2, CONTEXT_NEGATIVES = 3, DOCUMENT_NEGATIVES = 4 };

// What the host fills in, field by field as in device.py.

struct Chunk {
    float *center, *context, *document;  // the vectors
    const u32 *keep;     // the sampling tables; a column holds its threshold in the low bits and its alias above
    const u64 *columns;
    u64 n_words;
    u64 seed, epoch, first_document;  // its number in the whole text, of which this device may have a part
    int n_copied, n_copies;  // the first n_copied words have n_copies center rows each, stored after those of all words
    float context_weight, doc_weight, margin;
    int window, negatives, positions_per_draw, doc_negatives;
    const int *tokens;     // the tokens of the text
    const i64 *begins;     // start of each document in tokens
    const i64 *offsets;    // start of each document in the chunk
    const i64 *documents;  // their rows
    const i64 *pieces;     // of each document, its first piece
    const float *rates;    // of each piece
    const float *steps;    // of each document, the step of its row relative to that of the context row
    const int *places;     // of each piece, its document
    const int *stretches;  // of each stretch, its piece
    const int *starts;     // of each stretch, its first kept word
    i64 n_documents, n_stretches;
    u32 *kept;     // of each piece, its kept words, from its start
    int *n_kept;   // of each piece
    i64 *numbers;  // of each piece, the document's kept words before it
    int *next;     // the next document to subsample, the next stretch to train
    double *loss;
    u64 *counts;  // active, pairs, positions
};

struct Lines {
    const float *center, *context;
    double context_share;  // the share of its context row that is subtracted from each word's vector
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
    const u64 column = draw_below(bits, c.n_words), both = c.columns[column];
    return (u32)bits < (u32)both ? (u32)column : (u32)(both >> 32);
}

// The center row of a word that this warp moves: all warps share that of a rare word, some share a copy of a frequent one.
__device__ __forceinline__ u32 row_of(const Chunk &c, u32 word) {
    return word < (u32)c.n_copied ? (u32)c.n_words + blockIdx.x % c.n_copies * c.n_copied + word : word;
}

// ---- rows and warps (cpu/simd.py) -----------------------------------------------------------------------------------

__device__ __forceinline__ int lane() { return (int)threadIdx.x; }

// Sums over all lanes of n numbers at a time, in their places.
template <int n, typename T>
__device__ __forceinline__ void warp_sums(T (&x)[n]) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2)
#pragma unroll
        for (int i = 0; i < n; i++) x[i] += __shfl_xor_sync(EVERY_LANE, x[i], other);
}

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
    T sums[1] = {x};
    warp_sums(sums);
    return sums[0];
}

__device__ __forceinline__ u32 warp_or(u32 x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_or_sync(EVERY_LANE, x);
#else
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) x |= __shfl_xor_sync(EVERY_LANE, x, other);
    return x;
#endif
}

// Bits of the lanes before this one.
__device__ __forceinline__ u32 lanes_before() { return (1u << lane()) - 1u; }

// The number of the next piece of work, from 0; no other warp gets the same.
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
    const float4 *place = reinterpret_cast<const float4 *>(table) + lane() + row * QUARTERS;
    Row x = zero_row();
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (holds(p)) x.part[p] = __ldcg(place + p * WARP);
    return x;
}

__device__ __forceinline__ void store_row(float *table, u64 row, const Row &x) {
    float4 *place = reinterpret_cast<float4 *>(table) + lane() + row * QUARTERS;
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (holds(p)) __stcg(place + p * WARP, x.part[p]);
}

// Called by single lanes: prefetch the row of a word that will be read soon, unless it is always cached.
__device__ __forceinline__ void prefetch_row(const float *table, u64 row) {
    if (row < ALWAYS_CACHED) return;
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

// ---- a contrast (cpu/kernel.py) -------------------------------------------------------------------------------------

// Data shared by the lanes of a warp. Each row of a contrast has a slot: positives first, then negatives.
struct Slots {
    float4 anchor[QUARTERS];
#if STAGED
    float4 staged[STAGED][QUARTERS];
#endif
    float4 steps[2 * LANES];  // factor of the row itself, factor of the anchor, the row's weight in the anchor's move
    float products[2 * LANES];
    float squares[2 * LANES];
    u32 rows[2 * LANES];
    int moving[2 * LANES];       // the slots whose row moves
    u32 drawn[RING];             // negatives of this draw and the next, being prefetched
    u32 coming_document[LANES];  // those of the document's next words
    int reaches[WARP];           // of the windows of the next positions
#if WORDS
    u32 words[WORDS];            // of the document, around the next positions
#endif
};

// Counts and loss of this lane's hinges; pairs and positions are equal on all lanes.
struct Seen {
    double loss;
    u64 active, pairs, positions;
};

// The scalars of a contrast.
struct Scales {
    float inverse_norm, square;  // of the anchor
    float scale, margin, rate;
};

// Start to copy the rows into their slots.
__device__ __forceinline__ void start_copies(
    [[maybe_unused]] Slots &s, [[maybe_unused]] const float *table, [[maybe_unused]] int n
) {
#if STAGED
#pragma unroll AT_ONCE
    for (int slot = 0; slot < n; slot++) {
        const float4 *place = reinterpret_cast<const float4 *>(table) + lane() + (u64)s.rows[slot] * QUARTERS;
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            if (holds(p)) start_copy(&s.staged[slot][p * WARP + lane()], place + p * WARP);
    }
#endif
}

// The products of every slot's row with the anchor and with itself, one team per row.
__device__ __forceinline__ void gather_products(Slots &s, [[maybe_unused]] const float *table, int n) {
    const int team = lane() / TEAM, member = lane() % TEAM;
    const float2 *anchor = reinterpret_cast<const float2 *>(s.anchor);
    float2 y[TEAM_PARTS];
#pragma unroll
    for (int p = 0; p < TEAM_PARTS; p++)
        y[p] = p * TEAM + member < HALVES ? anchor[p * TEAM + member] : make_float2(0.0f, 0.0f);
#pragma unroll 1
    for (int first = 0; first < n; first += WARP / TEAM) {
        const int slot = first + team;
        float product[2] = {0.0f, 0.0f}, square[2] = {0.0f, 0.0f};
        if (slot < n) {
#if STAGED
            const float2 *place = reinterpret_cast<const float2 *>(s.staged[slot]);
#else
            const float2 *place = reinterpret_cast<const float2 *>(table + (u64)s.rows[slot] * ROW);
#endif
#pragma unroll
            for (int p = 0; p < TEAM_PARTS; p++) {
                if (p * TEAM + member < HALVES) {
#if STAGED
                    const float2 x = place[p * TEAM + member];
#else
                    const float2 x = __ldcg(place + p * TEAM + member);
#endif
                    product[0] += x.x * y[p].x;
                    product[1] += x.y * y[p].y;
                    square[0] += x.x * x.x;
                    square[1] += x.y * x.y;
                }
            }
        }
        product[0] += product[1];
        square[0] += square[1];
#pragma unroll
        for (int other = TEAM / 2; other > 0; other /= 2) {
            product[0] += __shfl_xor_sync(EVERY_LANE, product[0], other);
            square[0] += __shfl_xor_sync(EVERY_LANE, square[0], other);
        }
        if (member == 0 && slot < n) {
            s.products[slot] = product[0];
            s.squares[slot] = square[0];
        }
    }
}

// The step of each row that follows from the hinges, one lane per slot. Returns the bits of the slots whose row moves.
__device__ __forceinline__ u32 scale_steps(
    Slots &s, Seen &seen, int n_positives, int n_negatives, const Scales &c
) {
    const float rest = 1.0f - c.scale * c.margin;
    u32 moving = 0;
#pragma unroll 1
    for (int slot = lane(); slot < n_positives + n_negatives; slot += WARP) {
        const bool positive = slot < n_positives;
        const float product = s.products[slot];  // f of a positive, h of a negative
        const float *others = s.products + (positive ? n_positives : 0);
        const int n_others = positive ? n_negatives : n_positives;
        float count = 0.0f, weight = 0.0f, loss = 0.0f;
#pragma unroll 2
        for (int e = 0; e < n_others; e++) {
            const float f = positive ? product : others[e], h = positive ? others[e] : product;
            const float g = (c.margin + h) - f;
            if (!(g <= 0.0f)) {  // a NaN counts as active, so that it reaches the loss
                count += 1.0f;
                weight += c.scale * g + rest;  // q = 1 - scale (f - h)
                loss += g;
            }
        }
        if (count > 0.0f) {
            const float x = product * c.inverse_norm;
            const float asked = positive ? 1.0f - x : PAPER ? -1.0f - x : -2.0f * x;
            const float towards = c.rate * count * asked, own = 1.0f - towards * product;
            // |own x + towards v|^2, in an order that subtracts no large number from another.
            const float over = s.squares[slot] - 1.0f;
            const float square = s.squares[slot] - 2.0f * towards * product * over +
                                 towards * towards * fmaxf(c.square - product * product * (1.0f - over), 0.0f);
            const float shorter = rsqrtf(square);
            s.steps[slot] = make_float4(
                own * shorter, towards * shorter, positive ? c.rate * weight : -c.rate * weight, 0.0f
            );
            moving |= 1u << slot;
            if (positive) {
                seen.loss += loss;
                seen.active += (u64)count;
            }
        }
    }
    return warp_or(moving);
}

// Bits of the slots whose row stands in an earlier slot.
__device__ __forceinline__ u32 repetitions(const Slots &s, int n) {
#if WARP == 32
    const u32 within = n < 32 ? (1u << n) - 1u : EVERY_LANE;
    const u32 same = __match_any_sync(EVERY_LANE, (int)s.rows[lane()]) & within;
    return __ballot_sync(EVERY_LANE, (same & lanes_before()) != 0) & within;
#else
    u32 repeated = 0;
    for (int slot = 0; slot < n; slot++)
        for (int earlier = 0; earlier < slot; earlier++)
            if (s.rows[earlier] == s.rows[slot]) repeated |= 1u << slot;
    return repeated;
#endif
}

// Move the rows whose bits are set; the weighted sum of them, before, is given back. A row that stands in an earlier slot
// too comes last and is read again: it is moved twice.
__device__ __forceinline__ Row step_rows(Slots &s, float *table, u32 moving, u32 repeated, const Row &anchor) {
    const u32 once = moving & ~repeated;
#pragma unroll 1
    for (int slot = lane(); slot < 2 * LANES; slot += WARP)
        if (once >> slot & 1) s.moving[__popc(once & ((1u << slot) - 1u))] = slot;
    __syncwarp();
    Row total = zero_row();
    const int n = __popc(once);
#pragma unroll AT_ONCE
    for (int i = 0; i < n; i++) {
        const int slot = s.moving[i];
        const float4 step = s.steps[slot];
#if STAGED
        Row x = zero_row();
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            if (holds(p)) x.part[p] = s.staged[slot][p * WARP + lane()];
#else
        const Row x = load_row(table, s.rows[slot]);
#endif
        total = combined(1.0f, total, step.z, x);
        store_row(table, s.rows[slot], combined(step.x, x, step.y, anchor));
    }
#pragma unroll 1
    for (u32 left = moving & repeated; left != 0; left &= left - 1) {
        const int slot = __ffs((int)left) - 1;
        const float4 step = s.steps[slot];
        const Row x = load_row(table, s.rows[slot]);
        total = combined(1.0f, total, step.z, x);
        const Row moved = combined(step.x, x, step.y, anchor);  // not of norm 1: x.anchor is another by now
        const float shorter = rsqrtf(product(moved, moved));
        store_row(table, s.rows[slot], combined(shorter, moved, 0.0f, moved));
    }
    return total;
}

// R(scale times the part of y that is tangent at x), with the products that this takes.
__device__ __forceinline__ Row moved_row(const Row &x, const Row &y, float scale, float xx, float xy, float yy) {
    const float along = 1.0f - scale * xy;  // x + (y - (x.y) x) = (1 - x.y) x + y
    const float square = along * along * xx + scale * (2.0f * along * xy + scale * yy);
    const float shorter = rsqrtf(square);
    return combined(along * shorter, x, scale * shorter, y);
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// The words of each document that are kept by subsampling, piece by piece.
extern "C" __global__ void __launch_bounds__(WARP) thin(const Chunk *chunk) {
    const Chunk c = *chunk;
    for (i64 place = take(c.next); place < c.n_documents; place = take(c.next)) {
        const i64 begin = c.offsets[place], end = c.offsets[place + 1];
        const int *tokens = c.tokens + c.begins[place] - begin;
        const u64 key = stream_key(c.seed, c.epoch, c.first_document + (u64)c.documents[place], KEEP);
        i64 number = 0, piece = c.pieces[place];
        for (i64 from = begin; from < end; from += PIECE, piece++) {
            const i64 to = end < from + PIECE ? end : from + PIECE;
            int n = 0;
            for (i64 block = from; block < to; block += WARP) {
                const i64 t = block + lane();
                const u32 word = t < to ? (u32)tokens[t] : 0;
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

// Draw the document's negatives up to the draw of this number; "drawn" are there already.
__device__ __forceinline__ void draw_until(Slots &s, const Chunk &c, u64 key, u64 &drawn, u64 draw) {
#pragma unroll 1
    while (drawn < (draw + 1) * (u64)c.negatives) {
        const u64 index = drawn + lane();
        const u32 word = draw_word(c, random_bits(key, index));
        s.drawn[index % RING] = word;
        prefetch_row(c.center, word);
        drawn += WARP;
    }
}

// The negatives of the document's block of this number.
__device__ __forceinline__ void draw_for_document(Slots &s, const Chunk &c, u64 key, i64 block) {
#pragma unroll 1
    for (int e = lane(); e < c.doc_negatives; e += WARP) {
        const u32 word = draw_word(c, random_bits(key, (u64)(block * c.doc_negatives + e)));
        s.coming_document[e] = word;
        prefetch_row(c.center, word);
    }
}

#if WORDS
#define WORD_AT(t) s.words[(t) % WORDS]
#else
#define WORD_AT(t) kept[t]
#endif

// One stretch of a document; see train in cpu/kernel.py.
__device__ __forceinline__ void train_stretch(Slots &s, Seen &seen, const Chunk &c, i64 stretch) {
    const i64 piece = c.stretches[stretch], place = c.places[piece];
    const u64 document = (u64)c.documents[place], in_text = c.first_document + document;
    const int first = c.starts[stretch], n = c.n_kept[piece];
    const int last = n < first + STRETCH ? n : first + STRETCH;
    if (first >= last) return;
    const u32 *kept = c.kept + c.offsets[place] + (piece - c.pieces[place]) * PIECE;
    const u64 window_key = stream_key(c.seed, c.epoch, in_text, WINDOW);
    const u64 context_key = stream_key(c.seed, c.epoch, in_text, CONTEXT_NEGATIVES);
    const float context_rate = c.rates[piece] * c.context_weight / (float)c.negatives;
#if JOINT
    const float document_step = c.steps[place];
#else
    const u64 document_key = stream_key(c.seed, c.epoch, in_text, DOCUMENT_NEGATIVES);
    const float document_rate = c.rates[piece] * c.doc_weight / (float)c.doc_negatives;
#endif
    i64 number = c.numbers[piece] + first;  // of the kept word, counted over the whole document
    u64 draw = (u64)number / (u64)c.positions_per_draw;  // that the position takes its negatives from
    u64 drawn = draw * (u64)c.negatives;
    const int back = c.window > DOCUMENT_BLOCK ? c.window : DOCUMENT_BLOCK;
    int looked = first > back ? first - back : 0;  // words before this one are in s.words, or in the cache
    draw_until(s, c, context_key, drawn, draw);
#if !JOINT
    draw_for_document(s, c, document_key, number / DOCUMENT_BLOCK);
#endif
#pragma unroll 1
    for (int i = first; i < last; i++, number++) {
        if ((i - first) % WARP == 0) {
            s.reaches[lane()] = 1 + (int)draw_below(random_bits(window_key, (u64)number + lane()), (u64)c.window);
            const int needed = n - i > WARP + c.window ? i + WARP + c.window : n;
#pragma unroll 1
            for (int t = looked + lane(); t < needed; t += WARP) {
                const u32 word = kept[t];
#if WORDS
                s.words[t % WORDS] = word;
#endif
                prefetch_row(c.center, word);
                prefetch_row(c.context, word);
            }
            looked = needed;
            __syncwarp();
        }
        const u32 word = WORD_AT(i);
        const int reach = s.reaches[(i - first) % WARP];
        const int low = i > reach ? i - reach : 0, high = n - i > reach ? i + reach + 1 : n;
        const int n_around = high - low - 1;
        int at = 0;  // words of the window that had their contrast; it has more than one if it has more than 16 words
#if JOINT
        const bool of_document = false;
#else
        const bool ends_block = (number + 1) % DOCUMENT_BLOCK == 0 || i == n - 1;
        bool of_document = false;
#endif
#pragma unroll 1
        for (;;) {
            int m, k = 0;
            if (!of_document) {
                m = AT_MOST(n_around - at, LANES);
#pragma unroll 1
                for (int j = lane(); j < m; j += WARP) {
                    const int t = low + at + j;
                    s.rows[j] = row_of(c, WORD_AT(t + (t >= i)));
                }
#pragma unroll 1
                for (int from = 0; from < c.negatives; from += WARP) {
                    const int e = from + lane();
                    const u32 negative = e < c.negatives ? s.drawn[(draw * c.negatives + e) % RING] : word;
                    const u32 others = __ballot_sync(EVERY_LANE, negative != word);
                    if (negative != word) s.rows[m + k + __popc(others & lanes_before())] = row_of(c, negative);
                    k += __popc(others);
                }
            } else {
                const int before = (int)(number % DOCUMENT_BLOCK);
                m = AT_MOST(before, i) + 1;
                k = c.doc_negatives;
#pragma unroll 1
                for (int j = lane(); j < m; j += WARP) s.rows[j] = row_of(c, WORD_AT(i + 1 - m + j));
#pragma unroll 1
                for (int e = lane(); e < k; e += WARP) s.rows[m + e] = row_of(c, s.coming_document[e]);
            }
            __syncwarp();
            start_copies(s, c.center, m + k);
            float *table = of_document ? c.document : c.context;
            const u64 row = of_document ? document : word;
            const Row v = load_row(table, row);
#if JOINT
            const Row d = load_row(c.document, document);
#endif
            const u32 repeated = repetitions(s, m + k);
            if (of_document) {
#if !JOINT
                draw_for_document(s, c, document_key, (number + 1) / DOCUMENT_BLOCK);
#endif
            } else if (at == 0) {
                draw_until(s, c, context_key, drawn, draw + 1);
            }
            Scales scales = {1.0f, 1.0f, 1.0f, c.margin, context_rate};
#if JOINT
            const Row anchor = combined(1.0f, v, 1.0f, d);
            scales.square = fmaxf(2.0f + 2.0f * product(v, d), 1e-6f);
            scales.inverse_norm = rsqrtf(scales.square);
            scales.scale = 0.5f;
#else
            const Row &anchor = v;
            if (of_document) scales.rate = document_rate;
#endif
#pragma unroll
            for (int p = 0; p < PARTS; p++)
                if (holds(p)) s.anchor[p * WARP + lane()] = anchor.part[p];
            wait_for_copies();
            __syncwarp();
            gather_products(s, c.center, m + k);
            __syncwarp();
            const u32 moving = scale_steps(s, seen, m, k, scales);
            if (moving) {
                __syncwarp();
                const Row moves = step_rows(s, c.center, moving, repeated, anchor);
#if JOINT
                float sums[5] = {
                    share_of_product(moves, moves), share_of_product(v, v), share_of_product(v, moves),
                    share_of_product(d, d), share_of_product(d, moves)
                };
                warp_sums(sums);
                store_row(c.document, document, moved_row(d, moves, document_step, sums[3], sums[4], sums[0]));
#else
                float sums[3] = {share_of_product(moves, moves), share_of_product(v, v), share_of_product(v, moves)};
                warp_sums(sums);
#endif
                store_row(table, row, moved_row(v, moves, 1.0f, sums[1], sums[2], sums[0]));
            }
            seen.pairs += (u64)(m * k);
            __syncwarp();  // the slots are free again
            at += LANES;
            if (at < n_around && !of_document) continue;
#if !JOINT
            if (ends_block && !of_document) {
                of_document = true;
                continue;
            }
#endif
            break;
        }
        if ((u64)number + 1 == (draw + 1) * (u64)c.positions_per_draw) draw++;
    }
    seen.positions += (u64)(last - first);
}

extern "C" __global__ void __launch_bounds__(WARP, 8) train(const Chunk *chunk) {
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

// Replaces the copies of a word's center row, and the row itself, by their mean direction.
extern "C" __global__ void __launch_bounds__(WARP) merge(const Chunk *chunk) {
    const Chunk &c = *chunk;
    const u64 word = blockIdx.x;
    Row total = zero_row();
    for (int copy = 0; copy < c.n_copies; copy++)
        total = combined(1.0f, total, 1.0f, load_row(c.center, c.n_words + copy * c.n_copied + word));
    const float shorter = rsqrtf(fmaxf(product(total, total), 1e-12f));
    total = combined(shorter, total, 0.0f, total);
    store_row(c.center, word, total);
    for (int copy = 0; copy < c.n_copies; copy++) store_row(c.center, c.n_words + copy * c.n_copied + word, total);
}

struct Directions {
    double total[ROW], turned[ROW];
};

// A word's number u less a share of its context row's v, computed in double and rounded once (document_summands).
__device__ __forceinline__ double without(float u, float v, double share) {
    return share == 0.0 ? (double)u : (double)(float)__dadd_rn((double)u, -__dmul_rn(share, (double)v));
}

// Weighted mean directions, the same bytes as cpu/directions_kernel.py: products are rounded before they are added,
// in double, in the order of the words' first occurrence.
extern "C" __global__ void __launch_bounds__(WARP) write_directions(const Lines *lines) {
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
#pragma unroll 1
            for (int i = lane(); i < c.n_matrix; i += WARP) {
                double sum = 0.0;
                for (int k = 0; k < c.n_matrix; k++)
                    sum = __dadd_rn(sum, __dmul_rn(s.total[k], c.matrix[(i64)k * c.n_matrix + i]));
                s.turned[i] = sum;
            }
            __syncwarp();
#pragma unroll 1
            for (int i = lane(); i < c.n_matrix; i += WARP) s.total[i] = s.turned[i];
            __syncwarp();
        }
        double square = 0.0;
        for (int i = 0; i < ROW; i++) square = __dadd_rn(square, __dmul_rn(s.total[i], s.total[i]));
        const bool found = square > 0.0;
        if (found) {
            const double length = __dsqrt_rn(square);
#pragma unroll 1
            for (int i = lane(); i < ROW; i += WARP)
                c.directions[document * ROW + i] = (float)__ddiv_rn(s.total[i], length);
        }
        if (lane() == 0) c.found[document] = found;
        __syncwarp();
    }
}
