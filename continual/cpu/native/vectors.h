// Vectors of floats of the widest kind that the processor has, with loads and stores of a part of one.
//
// LANES floats are a vector, ACCUMULATORS of them are kept in registers by a product. What is summed in which
// order depends on LANES and on shapes, on nothing else.
#pragma once
#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, ACCUMULATORS = 24;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int LANES = 8, ACCUMULATORS = 12;
#elif defined(__aarch64__)
constexpr int LANES = 4, ACCUMULATORS = 24;
#else
constexpr int LANES = 4, ACCUMULATORS = 12;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE Vector load(const float* p) { return *(const Anywhere*)p; }
INLINE void store(float* p, Vector v) { *(Anywhere*)p = v; }
// Loaded once: compilers otherwise read memory again in each instruction that uses the vector.
#if defined(__x86_64__)
#define IN_REGISTER "+v"
#else
#define IN_REGISTER "+w"
#endif
INLINE Vector held(Vector v) {
  __asm__("" : IN_REGISTER(v));
  return v;
}

INLINE Vector all(float x) { return x - Vector{}; }

#if defined(__AVX512F__)
INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

// The first `count` lanes of a vector, fewer than all; the others are 0 or stay.
struct Part {
  __mmask16 lanes;
  explicit Part(long count) : lanes((__mmask16)((1u << count) - 1)) {}
  Vector load(const float* p) const { return (Vector)_mm512_maskz_loadu_ps(lanes, p); }
  void store(float* p, Vector v) const { _mm512_mask_storeu_ps(p, lanes, (__m512)v); }
};
#elif defined(__AVX2__) && defined(__FMA__)
INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

struct Part {
  __m256i lanes;
  explicit Part(long count) : lanes(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {}
  Vector load(const float* p) const { return (Vector)_mm256_maskload_ps(p, lanes); }
  void store(float* p, Vector v) const { _mm256_maskstore_ps(p, lanes, (__m256)v); }
};
#else
#if defined(__aarch64__)
INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return (Vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
#endif

struct Part {
  long count;
  explicit Part(long count) : count(count) {}
  Vector load(const float* p) const {
    Vector v = {};
    for (long i = 0; i < count; i++) v[i] = p[i];
    return v;
  }
  void store(float* p, Vector v) const {
    for (long i = 0; i < count; i++) p[i] = v[i];
  }
};
#endif

// The sum over the lanes of each of LANES vectors, as one vector. Lanes are added in pairs, first within each
// group of four and then across groups; every shuffle here is one instruction.
#define PICK __builtin_shufflevector
#if defined(__AVX512F__)
INLINE Vector pairs(Vector x, Vector y) {
  return PICK(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
         PICK(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
INLINE Vector fours(const Vector* v) {
  Vector x = pairs(v[0], v[1]), y = pairs(v[2], v[3]);
  return PICK(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         PICK(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
INLINE Vector halves(Vector x, Vector y) {
  return PICK(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         PICK(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
INLINE Vector lane_sums(const Vector* v) {
  Vector x = halves(fours(v), fours(v + 4)), y = halves(fours(v + 8), fours(v + 12));
  return PICK(x, y, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         PICK(x, y, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
#elif defined(__AVX2__) && defined(__FMA__)
INLINE Vector pairs(Vector x, Vector y) {
  return PICK(x, y, 0, 8, 1, 9, 4, 12, 5, 13) + PICK(x, y, 2, 10, 3, 11, 6, 14, 7, 15);
}
INLINE Vector fours(const Vector* v) {
  Vector x = pairs(v[0], v[1]), y = pairs(v[2], v[3]);
  return PICK(x, y, 0, 1, 8, 9, 4, 5, 12, 13) + PICK(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
}
INLINE Vector lane_sums(const Vector* v) {
  Vector x = fours(v), y = fours(v + 4);
  return PICK(x, y, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
}
#else
INLINE Vector pairs(Vector x, Vector y) { return PICK(x, y, 0, 4, 1, 5) + PICK(x, y, 2, 6, 3, 7); }
INLINE Vector lane_sums(const Vector* v) {
  Vector x = pairs(v[0], v[1]), y = pairs(v[2], v[3]);
  return PICK(x, y, 0, 1, 4, 5) + PICK(x, y, 2, 3, 6, 7);
}
#endif
