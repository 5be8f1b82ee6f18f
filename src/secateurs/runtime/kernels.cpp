// Kernels of the sparse runtime: linear layers here, whole networks in what is included at the end.
//
// Compiled once per instruction set (building.py) with SECATEURS_VARIANT_AVX512, _AVX2 or _PORTABLE.
// A tile of n samples is feature-major: value i of sample s stands at x[i * n + s]. n is 1 or a
// multiple of 16. A weight that is not stored takes no part, so that 0 * inf never arises.

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(SECATEURS_VARIANT_AVX512)
#include <immintrin.h>
#define VARIANT(name) name##_avx512
constexpr int kLanes = 16;
#elif defined(SECATEURS_VARIANT_AVX2)
#include <immintrin.h>
#define VARIANT(name) name##_avx2
constexpr int kLanes = 8;
#else
#define VARIANT(name) name##_portable
constexpr int kLanes = 4;
#endif

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operand inside its own AVX-512 intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))

#ifndef SECATEURS_SOURCES
#define SECATEURS_SOURCES ""
#endif

enum Kind : int32_t { kDense = 0, kRows = 1, kDense1 = 2, kSell = 3 };
enum Precision : int32_t { kFp32 = 0, kBf16 = 1, kInt8 = 2 };
enum Activation : int32_t { kNone = 0, kRelu = 1 };

// One packed linear layer; pack.py says what stands in the arrays of each kind.
struct Layer {
  int32_t kind;
  int32_t precision;
  int32_t activation;
  int32_t index_bytes;  // of indices: 2 or 4
  int64_t n_rows;
  int64_t n_cols;
  int64_t n_blocks;  // blocks of columns, band after band of rows (rows), slabs of 64 rows (sell)
  const void* values;
  const void* indices;
  const int32_t* starts;
  const int32_t* counts;
  const int32_t* order;
  const float* bias;
  const float* scales;
  int64_t n_per_band;  // blocks of columns of one band (rows)
};

// Everything has internal linkage: the same source is in the library once per instruction set, and
// a function shared by name would run where its instructions do not exist.
namespace {

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef float vf_unaligned __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

INLINE vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
INLINE void store(float* p, vf v) { *reinterpret_cast<vf_unaligned*>(p) = v; }
INLINE vf broadcast(float v) { return v - vf{}; }
// NaN stays NaN.
INLINE vf relu(vf v) { return v < 0.0f ? vf{} : v; }
INLINE float relu(float v) { return v < 0.0f ? 0.0f : v; }

INLINE float as_float(float v) { return v; }
INLINE float as_float(uint16_t v) {
  uint32_t bits = static_cast<uint32_t>(v) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
INLINE float as_float(int8_t v) { return v; }

// Weights stream from far away, and the hardware does not look far enough ahead for kernels that
// read them next to something else. The address need not exist.
INLINE void prefetch(const void* p) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + 4096));
}

// Each of four weights in every lane: one load and four shuffles cost fewer loads, which are what
// the sparse kernels are short of.
INLINE void four(const float* v, vf* w) {
#if defined(SECATEURS_VARIANT_AVX512)
  const __m512 all = _mm512_broadcast_f32x4(_mm_loadu_ps(v));
  w[0] = _mm512_permute_ps(all, 0x00);
  w[1] = _mm512_permute_ps(all, 0x55);
  w[2] = _mm512_permute_ps(all, 0xaa);
  w[3] = _mm512_permute_ps(all, 0xff);
#elif defined(SECATEURS_VARIANT_AVX2)
  const __m256 all = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(v));
  w[0] = _mm256_permute_ps(all, 0x00);
  w[1] = _mm256_permute_ps(all, 0x55);
  w[2] = _mm256_permute_ps(all, 0xaa);
  w[3] = _mm256_permute_ps(all, 0xff);
#else
  for (int u = 0; u < 4; u++) w[u] = broadcast(v[u]);
#endif
}

INLINE void four(const uint16_t* index, int64_t* at) {
  uint64_t all;
  std::memcpy(&all, index, 8);
  for (int u = 0; u < 4; u++) at[u] = (all >> (16 * u)) & 0xffff;
}
INLINE void four(const uint32_t* index, int64_t* at) {
  for (int u = 0; u < 4; u++) at[u] = index[u];
}

#if defined(SECATEURS_VARIANT_AVX512)
INLINE vf load_values(const float* p) { return load(p); }
INLINE vf load_values(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}
INLINE vf load_values(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#elif defined(SECATEURS_VARIANT_AVX2)
INLINE vf load_values(const float* p) { return load(p); }
INLINE vf load_values(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
}
INLINE vf load_values(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
#else
INLINE vf load_values(const float* p) { return load(p); }
template <typename V>
INLINE vf load_values(const V* p) {
  return vf{as_float(p[0]), as_float(p[1]), as_float(p[2]), as_float(p[3])};
}
#endif

// Values as floats: fp32 as they stand, others converted into `buffer`.
constexpr int kChunk = 1024;
INLINE const float* expand(const float* v, int32_t, float*) { return v; }
template <typename V>
INLINE const float* expand(const V* v, int32_t count, float* buffer) {
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(buffer + i, load_values(v + i));
  for (; i < count; i++) buffer[i] = as_float(v[i]);
  return buffer;
}

// One output row after another, sums in registers. Entries (block, row) of a block are sorted by
// their number of weights, which the branch predictor then knows.

template <int NV, int N, typename I>
INLINE void add_products(vf* sum, const float* v, const I* index, int count, const float* x,
                         int64_t stride) {
  constexpr int kSets = NV >= 8 ? 1 : NV >= 4 ? 2 : 4;
  const int64_t step = N ? N : stride;
  vf more[kSets][NV] = {};
  int k = 0;
  for (; k + 4 <= count; k += 4) {
    vf w[4];
    int64_t at[4];
    four(v + k, w);
    four(index + k, at);
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) {
      const float* from = x + at[u] * step;
      vf* to = u % kSets == 0 ? sum : more[u % kSets];
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) to[j] += w[u] * load(from + j * kLanes);
    }
  }
  for (; k < count; k++) {
    const float* from = x + static_cast<int64_t>(index[k]) * step;
    const vf w = broadcast(v[k]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sum[j] += w * load(from + j * kLanes);
  }
#pragma GCC unroll 16
  for (int u = 1; u < kSets; u++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sum[j] += more[u][j];
}

// NV vectors of samples at x and y; N: samples in the tile where known, else 0.
template <int NV, int N, typename I, typename V>
void rows(const Layer& layer, const float* x, float* y, int64_t n) {
  // Copies: a store to y might change what `layer` points to, for all the compiler knows.
  const V* v = static_cast<const V*>(layer.values);
  const I* index = static_cast<const I*>(layer.indices);
  const int32_t* order = layer.order;
  const int32_t* counts = layer.counts;
  const float* bias = layer.bias;
  const float* scales = layer.scales;
  const int64_t step = N ? N : n, n_blocks = layer.n_blocks, n_per_band = layer.n_per_band;
  const bool clip = layer.activation == kRelu;
  alignas(64) float buffer[kChunk];
  const float* w = buffer;
  for (int64_t b = 0; b < n_blocks; b++) {
    const bool first = b % n_per_band == 0, clip_here = clip && (b + 1) % n_per_band == 0;
    const int32_t* end = counts + (layer.starts[b + 1] - layer.starts[b]);
    const int32_t* expanded = counts;  // rows before it stand in `buffer`
    for (; counts < end; counts++, order++) {
      const int32_t row = *order;
      float* out = y + row * step;
      int32_t count = *counts;
      vf sum[NV] = {};
      if (count <= 24) {  // one line for each row is enough then, and the jumps are many
        prefetch(v);
        prefetch(index);
      }
      if (sizeof(V) == 4) {
        w = expand(v, count, buffer);
        v += count;
      } else if (counts == expanded) {
        int32_t total = 0;
        while (expanded < end && total + *expanded <= kChunk) total += *expanded++;
        w = expand(v, total, buffer);
        v += total;
        if (counts == expanded) {  // a row longer than the buffer: all of it but a last part
          expanded++;
          for (; count > kChunk; count -= kChunk, index += kChunk, v += kChunk)
            add_products<NV, N>(sum, expand(v, kChunk, buffer), index, kChunk, x, n);
          w = expand(v, count, buffer);
          v += count;
        }
      }
      if (sizeof(V) == 1) {
        add_products<NV, N>(sum, w, index, count, x, n);
        const vf scale = broadcast(scales[row]);
#pragma GCC unroll 8
        for (int j = 0; j < NV; j++)
          sum[j] = sum[j] * scale + (first ? broadcast(bias[row]) : load(out + j * kLanes));
      } else {
        // The start goes in early: an addition at the end would wait for the products.
        if (first) {
          const vf start = broadcast(bias[row]);
#pragma GCC unroll 8
          for (int j = 0; j < NV; j++) sum[j] += start;
        } else {
#pragma GCC unroll 8
          for (int j = 0; j < NV; j++) sum[j] += load(out + j * kLanes);
        }
        add_products<NV, N>(sum, w, index, count, x, n);
      }
      w += count;
      index += count;
      if (clip_here) {
#pragma GCC unroll 8
        for (int j = 0; j < NV; j++) sum[j] = relu(sum[j]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) store(out + j * kLanes, sum[j]);
    }
  }
}

// One sample, one weight after another: gathers are slower (Zen 5: 1.4 times).
template <typename I, typename V>
void rows_one(const Layer& layer, const float* x, float* y) {
  const V* v = static_cast<const V*>(layer.values);
  const I* index = static_cast<const I*>(layer.indices);
  const int32_t* order = layer.order;
  const int32_t* counts = layer.counts;
  const float* bias = layer.bias;
  const float* scales = layer.scales;
  const int64_t n_blocks = layer.n_blocks, n_per_band = layer.n_per_band;
  const bool clip = layer.activation == kRelu;
  for (int64_t b = 0; b < n_blocks; b++) {
    const bool first = b % n_per_band == 0, clip_here = clip && (b + 1) % n_per_band == 0;
    const int32_t* end = counts + (layer.starts[b + 1] - layer.starts[b]);
    for (; counts < end; counts++, order++) {
      const int32_t row = *order;
      const int32_t count = *counts;
      float sums[4] = {};
      int32_t k = 0;
      for (; k + 4 <= count; k += 4) {
        int64_t at[4];
        four(index + k, at);
        for (int u = 0; u < 4; u++) sums[u] += as_float(v[k + u]) * x[at[u]];
      }
      for (; k < count; k++) sums[0] += as_float(v[k]) * x[index[k]];
      float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      if (sizeof(V) == 1) sum *= scales[row];
      sum += first ? bias[row] : y[row];
      y[row] = clip_here ? relu(sum) : sum;
      v += count;
      index += count;
    }
  }
}

template <typename I, typename V>
void rows_any(const Layer& layer, const float* x, float* y, int64_t n) {
  if (n == 1) return rows_one<I, V>(layer, x, y);
  if (n == 16) return rows<16 / kLanes, 16, I, V>(layer, x, y, n);
  constexpr int k32 = 32 / kLanes, k64 = 64 / kLanes;
  if (n == 32) return rows<k32, 32, I, V>(layer, x, y, n);
#if !defined(SECATEURS_VARIANT_PORTABLE)
  if (n == 64) return rows<k64, 64, I, V>(layer, x, y, n);
  constexpr int kMost = 64;
#else
  constexpr int kMost = 32;
#endif
  int64_t s = 0;
  for (; s + kMost <= n; s += kMost)
    rows<kMost == 64 && k64 <= 8 ? k64 : k32, 0, I, V>(layer, x + s, y + s, n);
  for (; s < n; s += 16) rows<16 / kLanes, 0, I, V>(layer, x + s, y + s, n);
}

// --------------------------------------------------------------------------------------- dense
// Panels of 12 rows, [panel][column][12]; a register block is kSub of these rows by kWide vectors.

constexpr int kPanel = 12;
#if defined(SECATEURS_VARIANT_AVX512)
constexpr int kSub = 12, kWide = 2;
#elif defined(SECATEURS_VARIANT_AVX2)
constexpr int kSub = 6, kWide = 2;
#else
constexpr int kSub = 4, kWide = 2;
#endif

template <int NV, typename V>
INLINE void dense_block(const Layer& layer, const V* panel, const float* x, float* y, int64_t n,
                        int64_t row, int sub) {
  constexpr int kDepth = sizeof(V) == 4 ? 1 << 30 : kChunk / kPanel;
  alignas(64) float buffer[kChunk];
  vf sum[kSub][NV];
#pragma GCC unroll 12
  for (int r = 0; r < kSub; r++)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) sum[r][j] = vf{};
  for (int64_t from = 0; from < layer.n_cols; from += kDepth) {
    const int64_t left = layer.n_cols - from;
    const int64_t depth = left < kDepth ? left : kDepth;
    const float* w = expand(panel + from * kPanel, depth * kPanel, buffer) + sub;
    const float* in = x + from * n;
    for (int64_t k = 0; k < depth; k++) {
      vf a[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) a[j] = load(in + j * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < kSub; r++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) sum[r][j] += broadcast(w[r]) * a[j];
      if (sizeof(V) == 4) prefetch(w);
      w += kPanel;
      in += n;
    }
  }
  const bool clip = layer.activation == kRelu;
#pragma GCC unroll 12
  for (int r = 0; r < kSub; r++) {
    if (row + r >= layer.n_rows) break;
    const vf bias = broadcast(layer.bias[row + r]);
    const vf scale = broadcast(sizeof(V) == 1 ? layer.scales[row + r] : 1.0f);
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) {
      vf v = sizeof(V) == 1 ? sum[r][j] * scale + bias : sum[r][j] + bias;
      if (clip) v = relu(v);
      store(y + (row + r) * n + j * kLanes, v);
    }
  }
}

template <typename V>
void dense(const Layer& layer, const float* x, float* y, int64_t n) {
  const V* panel = static_cast<const V*>(layer.values);
  for (int64_t row = 0; row < layer.n_rows; row += kPanel, panel += layer.n_cols * kPanel)
    for (int sub = 0; sub < kPanel && row + sub < layer.n_rows; sub += kSub) {
      int64_t s = 0;
      for (; s + kWide * kLanes <= n; s += kWide * kLanes)
        dense_block<kWide>(layer, panel, x + s, y + s, n, row + sub, sub);
      for (; s < n; s += kLanes)
        dense_block<1>(layer, panel, x + s, y + s, n, row + sub, sub);
    }
}

// Slabs of 64 rows, [slab][column][64].
constexpr int kSlab = 64;

template <typename V>
void dense_one(const Layer& layer, const float* x, float* y) {
  const V* v = static_cast<const V*>(layer.values);
  constexpr int kVectors = kSlab / kLanes > 8 ? 8 : kSlab / kLanes;
  constexpr int kRowsAtOnce = kVectors * kLanes;
  for (int64_t slab = 0; slab < layer.n_rows; slab += kSlab, v += layer.n_cols * kSlab)
    for (int part = 0; part < kSlab && slab + part < layer.n_rows; part += kRowsAtOnce) {
      vf sum[kVectors] = {}, more[kVectors] = {};
      const V* w = v + part;
      int64_t k = 0;
      if (kVectors <= 4)
        for (; k + 2 <= layer.n_cols; k += 2, w += 2 * kSlab) {
          const vf a = broadcast(x[k]), b = broadcast(x[k + 1]);
#pragma GCC unroll 8
          for (int j = 0; j < kVectors; j++) {
            sum[j] += a * load_values(w + j * kLanes);
            more[j] += b * load_values(w + kSlab + j * kLanes);
          }
        }
      for (; k < layer.n_cols; k++, w += kSlab) {
        const vf a = broadcast(x[k]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; j++) sum[j] += a * load_values(w + j * kLanes);
      }
      float out[kRowsAtOnce];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) store(out + j * kLanes, sum[j] + more[j]);
      for (int r = 0; r < kRowsAtOnce && slab + part + r < layer.n_rows; r++) {
        const int64_t row = slab + part + r;
        const float sum1 = (sizeof(V) == 1 ? out[r] * layer.scales[row] : out[r]) + layer.bias[row];
        y[row] = layer.activation == kRelu ? relu(sum1) : sum1;
      }
    }
}

// ---------------------------------------------------------------------------------------- sell

#if defined(SECATEURS_VARIANT_AVX512)
// Batch of one: slabs of 64 rows by blocks of 31 columns, no gathers. The inputs of a block stand
// in two registers and are looked up there (vpermi2ps); place 31 is zero, which is what the slots
// that pad a row look up, so that an infinity elsewhere does not reach them. In each block the 64 rows are sorted
// by their number of weights into four groups of 16 lanes, so that a group wastes few slots; the
// four partial sums are then permuted back into the order of the slab.

template <typename V>
INLINE __m512 slot_values(const uint8_t* p) {
  return (__m512)load_values(reinterpret_cast<const V*>(p));
}

template <typename V>
INLINE __m512 group(const uint8_t*& p, int32_t count, __m512 lo, __m512 hi) {
  constexpr int kBytes = 16 * sizeof(V);
  __m512 sum = _mm512_setzero_ps();
  while (count > 0) {
    __m512i at = _mm512_loadu_si512(p);
    p += 64;
    const int32_t part = count < 6 ? count : 6;
    for (int32_t u = 0; u < part; u++) {
      sum = _mm512_fmadd_ps(slot_values<V>(p), _mm512_permutex2var_ps(lo, at, hi), sum);
      at = _mm512_srli_epi32(at, 5);
      prefetch(p);
      p += kBytes;
    }
    count -= part;
  }
  return sum;
}

INLINE __m512 back(const uint8_t* places, __m512 s0, __m512 s1, __m512 s2, __m512 s3) {
  const __m512i at = _mm512_cvtepu8_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(places)));
  const __m512 low = _mm512_permutex2var_ps(s0, at, s1);
  const __m512 high = _mm512_permutex2var_ps(s2, at, s3);
  return _mm512_mask_blend_ps(_mm512_test_epi32_mask(at, _mm512_set1_epi32(32)), low, high);
}

template <typename V>
void sell(const Layer& layer, const float* x, float* y) {
  const uint8_t* p = static_cast<const uint8_t*>(layer.values);
  const int32_t* block = static_cast<const int32_t*>(layer.indices);
  const int32_t* run = layer.counts;
  for (int64_t slab = 0; slab < layer.n_blocks; slab++) {
    __m512 sum[4] = {};
    for (int32_t r = layer.starts[slab]; r < layer.starts[slab + 1]; r++, run += 5) {
      const int32_t c0 = run[1], c1 = run[2], c2 = run[3], c3 = run[4];
      for (int32_t i = 0; i < run[0]; i++) {
        const int64_t column = *block++;
        const int64_t left = layer.n_cols - column;
        __m512 lo, hi;
        if (left >= 31) {
          lo = _mm512_loadu_ps(x + column);
          hi = _mm512_maskz_loadu_ps(0x7fff, x + column + 16);
        } else {
          const uint32_t mask = (1u << left) - 1;
          lo = _mm512_maskz_loadu_ps(mask & 0xffff, x + column);
          hi = left > 16 ? _mm512_maskz_loadu_ps(mask >> 16, x + column + 16) : __m512{};
        }
        const uint8_t* places = p;
        p += 64;
        const __m512 s0 = group<V>(p, c0, lo, hi);
        const __m512 s1 = group<V>(p, c1, lo, hi);
        const __m512 s2 = group<V>(p, c2, lo, hi);
        const __m512 s3 = group<V>(p, c3, lo, hi);
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) sum[g] += back(places + 16 * g, s0, s1, s2, s3);
      }
    }
    const int64_t base = slab * 64;
    float out[64];
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
      const __m512 bias = _mm512_loadu_ps(layer.bias + base + 16 * g);
      if (sizeof(V) == 1) sum[g] = sum[g] * _mm512_loadu_ps(layer.scales + base + 16 * g) + bias;
      else sum[g] = sum[g] + bias;
      if (layer.activation == kRelu) sum[g] = (__m512)relu((vf)sum[g]);
      _mm512_storeu_ps(out + 16 * g, sum[g]);
    }
    const int64_t left = layer.n_rows - base;
    const int32_t* order = layer.order + base;
    for (int i = 0; i < 64 && i < left; i++) y[order[i]] = out[i];
  }
}
#endif

// y [n_rows][n] = activation(W x + bias), x [n_cols][n]. `scratch` is not used so far.
// 0, or -1 if this instruction set has no such kernel.
int linear(const Layer& layer, const float* x, float* y, int64_t n, float* scratch) {
  (void)scratch;
  const bool wide = layer.index_bytes == 4;
  switch (layer.kind) {
    case kRows:
      switch (layer.precision) {
        case kFp32:
          wide ? rows_any<uint32_t, float>(layer, x, y, n)
               : rows_any<uint16_t, float>(layer, x, y, n);
          return 0;
        case kBf16:
          wide ? rows_any<uint32_t, uint16_t>(layer, x, y, n)
               : rows_any<uint16_t, uint16_t>(layer, x, y, n);
          return 0;
        case kInt8:
          wide ? rows_any<uint32_t, int8_t>(layer, x, y, n)
               : rows_any<uint16_t, int8_t>(layer, x, y, n);
          return 0;
      }
      return -1;
    case kDense:
      if (n == 1) return -1;
      if (layer.precision == kFp32) return dense<float>(layer, x, y, n), 0;
      if (layer.precision == kBf16) return dense<uint16_t>(layer, x, y, n), 0;
      return dense<int8_t>(layer, x, y, n), 0;
    case kDense1:
      if (n != 1) return -1;
      if (layer.precision == kFp32) return dense_one<float>(layer, x, y), 0;
      if (layer.precision == kBf16) return dense_one<uint16_t>(layer, x, y), 0;
      return dense_one<int8_t>(layer, x, y), 0;
#if defined(SECATEURS_VARIANT_AVX512)
    case kSell:
      if (n != 1) return -1;
      if (layer.precision == kFp32) return sell<float>(layer, x, y), 0;
      if (layer.precision == kBf16) return sell<uint16_t>(layer, x, y), 0;
      return sell<int8_t>(layer, x, y), 0;
#endif
  }
  return -1;
}

}  // namespace

EXPORT int32_t VARIANT(secateurs_linear)(const Layer* layer, const float* x, float* y, int64_t n,
                                         float* scratch) {
  return linear(*layer, x, y, n, scratch);
}

// Layers one after another, back and forth between tiles a and b, to be timed without a caller.
EXPORT int32_t VARIANT(secateurs_chain)(const Layer* const* layers, int32_t n_layers, float* a,
                                        float* b, int64_t n, int32_t n_times) {
  for (int32_t t = 0; t < n_times; t++)
    for (int32_t i = 0; i < n_layers; i++)
      if (linear(*layers[i], i % 2 ? b : a, i % 2 ? a : b, n, nullptr) != 0) return -1;
  return 0;
}

#if defined(SECATEURS_VARIANT_PORTABLE)
// Of building.py's digest: a library of other sources may lay its structures out otherwise.
EXPORT const char* secateurs_sources() { return SECATEURS_SOURCES; }

// 2: AVX-512, 1: AVX2, 0: neither; by what the processor and the operating system both support.
EXPORT int32_t secateurs_best_variant() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}
#endif

#include "peaks.inc"

#if __has_include("images.inc") && !defined(SECATEURS_LINEAR_ONLY)
#include "images.inc"
#endif
