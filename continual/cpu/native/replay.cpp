// Runs a recorded step: for each replica, for so many steps, call after call, on addresses from its table.
//
// A program is a row of 64-bit numbers. Each call begins with its kind and the count of numbers that follow:
//   KERNEL   address of a function, then the places in the table of its arguments
//   PRODUCT  batch, rows, columns, depth; for each of A, B, C its place, and its steps from one matrix, one row
//            and one column to the next
//   IMAGES   stored, batch, channels, size, kind of pixel (0: bytes, 1: floats); places of pixels, scale,
//            shift, rows, permutation (-1: none) and of what is written
#include <cstring>
#include <exception>
#include <utility>

#include "images.h"
#include "products.h"

enum Kind : int64_t { KERNEL, PRODUCT, IMAGES };
constexpr int MOST_ARGUMENTS = 160;

template <size_t>
using Address = void*;

template <size_t... I>
static void call(std::index_sequence<I...>, const int64_t* of, void* const* table) {
  ((void (*)(Address<I>...))of[0])(table[of[1 + I]]...);
}

template <size_t N>
static void call_with(const int64_t* of, void* const* table) {
  call(std::make_index_sequence<N>(), of, table);
}

using Caller = void (*)(const int64_t*, void* const*);
template <size_t... N>
static constexpr Caller caller(std::index_sequence<N...>, int64_t count) {
  constexpr Caller callers[] = {call_with<N>...};
  return callers[count];
}

static void multiply(const int64_t* p, void* const* table) {
  long batch = p[0], rows = p[1], columns = p[2], depth = p[3];
  const int64_t *a = p + 4, *b = p + 8, *c = p + 12;
  for (long i = 0; i < batch; i++)
    product({(const float*)table[a[0]] + i * a[1], a[2], a[3]}, {(const float*)table[b[0]] + i * b[1], b[2], b[3]},
            (float*)table[c[0]] + i * c[1], c[2], c[3], rows, columns, depth);
}

static void gather(const int64_t* p, void* const* table) {
  Images of = {p[0], p[1], p[2], p[3]};
  auto scale = (const float*)table[p[6]], shift = (const float*)table[p[7]];
  auto rows = (const int64_t*)table[p[8]], permutation = p[9] < 0 ? nullptr : (const int64_t*)table[p[9]];
  auto out = (float*)table[p[10]];
  if (p[4] == 0) images(of, (const uint8_t*)table[p[5]], scale, shift, rows, permutation, out);
  else images(of, (const float*)table[p[5]], scale, shift, rows, permutation, out);
}

extern "C" {

int64_t lanes() { return LANES; }

int64_t most_arguments() { return MOST_ARGUMENTS - 1; }

// 0, or 1 with a message of less than `room` bytes where a call raised an error: the replica's state is lost.
int64_t replay(const int64_t* program, int64_t length, void* const* tables, int64_t places, int64_t replicas,
               int64_t steps, char* message, int64_t room) {
  try {
    for (int64_t r = 0; r < replicas; r++) {
      void* const* table = tables + r * places;
      for (int64_t step = 0; step < steps; step++)
        for (const int64_t* p = program; p < program + length; p += 2 + p[1]) switch (p[0]) {
            case KERNEL: caller(std::make_index_sequence<MOST_ARGUMENTS>(), p[1] - 1)(p + 2, table); break;
            case PRODUCT: multiply(p + 2, table); break;
            case IMAGES: gather(p + 2, table); break;
          }
    }
  } catch (const std::exception& error) {
    strncpy(message, error.what(), room - 1);
    message[room - 1] = 0;
    return 1;
  }
  return 0;
}

// So many rounds of multiply-adds that wait for nothing, to measure what the processor can do; returns their count.
int64_t multiply_adds(int64_t rounds) {
  Vector sums[ACCUMULATORS] = {}, x = all(0.999f), y = all(1e-3f);
  for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 24
    for (int i = 0; i < ACCUMULATORS; i++) {
      sums[i] = multiply_add(sums[i], x, y);
      __asm__ volatile("" : IN_REGISTER(sums[i]));  // each is computed, and none is computed ahead
    }
  }
  volatile float kept = 0;
#pragma GCC unroll 24
  for (int i = 0; i < ACCUMULATORS; i++) kept = kept + sums[i][0];
  return rounds * ACCUMULATORS * LANES;
}

// One product, for tests: as PRODUCT above, with the table's three addresses. 0 if it can be taken, else 1.
int64_t one_product(const float* a, const float* b, float* c, const int64_t* p) {
  return product({a, p[3], p[4]}, {b, p[5], p[6]}, c, p[7], p[8], p[0], p[1], p[2]) ? 0 : 1;
}
}
