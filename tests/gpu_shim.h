// What kernels.cu needs of CUDA, for a host compiler: its kernels run on the processor, one lane at a time.
//
// A warp has WARP lanes. With one, a row is whole and nothing is exchanged: quick, for trainings. With 32, each lane is a
// fibre of its own that runs until the warp has to meet, so that what lanes exchange, and what they must not read before
// it is there, is what it is on a device. Several warps take turns wherever a warp meets: the documents in flight.
//
//     g++ -std=c++17 -shared -fPIC -include tests/gpu_shim.h -x c++ jose_embed/compute/gpu/kernels.cu -DWARP=1 -DROW=112 ...
//
// launch() runs a kernel and gives back 0, or 1 where lanes wait for each other for ever: warps that part and meet in
// different places, which no device would forgive.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define SHARED(type, name) type &name = *shim::shared<type>()

struct float2 {
    float x, y;
};

struct float4 {
    float x, y, z, w;
};

struct dim3_ {
    unsigned x, y, z;
};

namespace shim {

constexpr int stack_bytes = 1 << 17;
using Kernel = void (*)(const void *);

struct Warp {
    int arrived = 0, generation = 0;
    std::vector<std::uint64_t> values[2];  // what lanes exchange; two, so that a quick lane overwrites nothing
    std::unique_ptr<char[]> shared;
};

struct Fibre {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    Warp *warp = nullptr;
    int lane = 0, block = 0, exchanges = 0, waits_for = 0;
    bool started = false, waiting = false, yielded = false, done = false;
};

inline std::vector<Fibre> fibres;
inline Fibre *now = nullptr;
inline jmp_buf scheduler;
inline ucontext_t scheduler_context;
inline Kernel kernel;
inline const void *argument;
inline bool alone = false;  // one warp of one lane: nobody to wait for

inline void leave() {
    if (_setjmp(now->place) == 0) _longjmp(scheduler, 1);
}

// All lanes of the warp come here before any goes on, and the other warps have their turn.
inline void meet() {
    if (alone) return;
    Warp &warp = *now->warp;
    if (++warp.arrived == WARP) {
        warp.arrived = 0;
        warp.generation++;
        now->yielded = true;
        leave();
        return;
    }
    now->waiting = true;
    now->waits_for = warp.generation + 1;
    leave();
}

template <typename T>
inline std::uint64_t packed(T value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

// The values of all lanes.
template <typename T>
inline const std::vector<std::uint64_t> &exchanged(T value) {
    std::vector<std::uint64_t> &values = now->warp->values[now->exchanges++ & 1];
    values[now->lane] = packed(value);
    meet();
    return values;
}

template <typename T>
inline T unpacked(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T>
inline T *shared() {
    Warp &warp = *now->warp;
    if (!warp.shared) {
        warp.shared = std::make_unique<char[]>(sizeof(T) + 64);
        std::memset(warp.shared.get(), 0xff, sizeof(T) + 64);  // what was never written is no number
    }
    auto at = reinterpret_cast<std::uintptr_t>(warp.shared.get());
    return reinterpret_cast<T *>((at + 63) / 64 * 64);
}

inline void body() {
    kernel(argument);
    now->done = true;
    _longjmp(scheduler, 1);
}

// Run one fibre until it leaves.
inline void turn(Fibre &fibre) {
    now = &fibre;
    if (_setjmp(scheduler) == 0) {
        if (fibre.started) _longjmp(fibre.place, 1);
        fibre.started = true;
        setcontext(&fibre.context);
    }
}

inline int run(Kernel chosen, int blocks, const void *data, bool backwards) {
    kernel = chosen;
    argument = data;
    std::vector<Warp> warps(blocks);
    fibres = std::vector<Fibre>(static_cast<size_t>(blocks) * WARP);
    alone = fibres.size() == 1;
    for (size_t i = 0; i < fibres.size(); i++) {
        Fibre &fibre = fibres[i];
        fibre.block = static_cast<int>(i) / WARP;
        fibre.lane = static_cast<int>(i) % WARP;
        fibre.warp = &warps[fibre.block];
        for (auto &values : fibre.warp->values) values.resize(WARP);
        if (alone) break;
        fibre.stack = std::make_unique<char[]>(stack_bytes);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = stack_bytes;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, body, 0);
    }
    if (alone) {
        now = &fibres[0];
        kernel(argument);
        return 0;
    }
    for (size_t left = fibres.size(); left > 0;) {
        bool moved = false;
        for (size_t i = 0; i < fibres.size(); i++) {
            Fibre &fibre = fibres[backwards ? fibres.size() - 1 - i : i];
            if (fibre.done || (fibre.waiting && fibre.warp->generation < fibre.waits_for)) continue;
            fibre.waiting = false;
            turn(fibre);
            moved = true;
            if (fibre.done) left--;
        }
        if (!moved) return 1;
    }
    return 0;
}

struct Indices {
    struct Lane {
        operator int() const { return now->lane; }
    } x;
};

struct Blocks {
    struct Block {
        operator int() const { return now->block; }
    } x;
};

}  // namespace shim

inline shim::Indices threadIdx;
inline shim::Blocks blockIdx;

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float2 __ldcg(const float2 *place) { return *place; }
inline float4 __ldcg(const float4 *place) { return *place; }
inline void __stcg(float4 *place, float4 value) { *place = value; }
inline void prefetch_l2(const void *) {}
inline void start_copy(float4 *to, const float4 *from) { *to = *from; }
inline void wait_for_copies() {}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline void __syncwarp() { shim::meet(); }

template <typename T>
inline T __shfl_xor_sync(unsigned, T value, int other) {
    return shim::unpacked<T>(shim::exchanged(value)[shim::now->lane ^ other]);
}

template <typename T>
inline T __shfl_sync(unsigned, T value, int from) {
    return shim::unpacked<T>(shim::exchanged(value)[from]);
}

inline unsigned __ballot_sync(unsigned, bool value) {
    const auto &values = shim::exchanged(static_cast<unsigned>(value));
    unsigned bits = 0;
    for (int lane = 0; lane < WARP; lane++) bits |= static_cast<unsigned>(values[lane] != 0) << lane;
    return bits;
}

inline unsigned __match_any_sync(unsigned, int value) {
    const auto &values = shim::exchanged(value);
    unsigned bits = 0;
    for (int lane = 0; lane < WARP; lane++)
        bits |= static_cast<unsigned>(values[lane] == shim::packed(value)) << lane;
    return bits;
}

template <typename T, typename U>
inline T atomicAdd(T *place, U more) {
    const T before = *place;
    *place = before + static_cast<T>(more);
    return before;
}

template <typename T>
inline T atomicExch(T *place, T value) {
    const T before = *place;
    *place = value;
    return before;
}

extern "C" int launch(shim::Kernel kernel, int blocks, const void *data, int backwards) {
    return shim::run(kernel, blocks, data, backwards != 0);
}

// The functions of the samples, to be compared number by number; defined at the end of what includes this.
