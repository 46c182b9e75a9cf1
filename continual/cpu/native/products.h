// Products of small matrices of floats: C[m, n] = sum over k of A[m, k] B[k, n], one after the other.
//
// Two ways, chosen by how the matrices lie in memory, each in tiles whose sums stay in registers. An entry's
// sum is taken in an order that depends on the depth (the number of k) and on LANES alone:
//   outer: B and C are rows of neighbours along n; k = 0, 1, 2, ... are added one by one.
//   inner: A and B are neighbours along k; each lane adds its own k, then the lanes are added in pairs.
#pragma once
#include <cstring>

#include "vectors.h"

struct Matrix {
  const float* at;
  long row, column;  // steps in memory from one row, or one column, to the next
};

// ---- outer

// The tile of TM rows and TV vectors at c. The last vector may be a part.
template <int TM, int TV, bool PART>
INLINE void outer_tile(Matrix a, const float* b, long b_row, float* c, long c_row, long depth, Part part) {
  Vector sum[TM][TV] = {};
#pragma GCC unroll 1
  for (long k = 0; k < depth; k++) {
    Vector x[TV];
#pragma GCC unroll 8
    for (int v = 0; v < TV; v++) {
      const float* from = b + k * b_row + v * LANES;
      x[v] = held(PART && v == TV - 1 ? part.load(from) : load(from));
    }
#pragma GCC unroll 8
    for (int i = 0; i < TM; i++) {
      Vector y = held(all(a.at[i * a.row + k * a.column]));
#pragma GCC unroll 8
      for (int v = 0; v < TV; v++) sum[i][v] = multiply_add(y, x[v], sum[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < TM; i++)
#pragma GCC unroll 8
    for (int v = 0; v < TV; v++) {
      if (PART && v == TV - 1) part.store(c + i * c_row + v * LANES, sum[i][v]);
      else store(c + i * c_row + v * LANES, sum[i][v]);
    }
}

// All rows of TV vectors of columns.
template <int TV, bool PART>
static void outer_columns(Matrix a, const float* b, long b_row, float* c, long c_row, long rows, long depth, Part part) {
  long m = 0;
  for (; m + 4 <= rows; m += 4) outer_tile<4, TV, PART>({a.at + m * a.row, a.row, a.column}, b, b_row, c + m * c_row, c_row, depth, part);
  a.at += m * a.row;
  c += m * c_row;
  if (rows - m == 3) outer_tile<3, TV, PART>(a, b, b_row, c, c_row, depth, part);
  if (rows - m == 2) outer_tile<2, TV, PART>(a, b, b_row, c, c_row, depth, part);
  if (rows - m == 1) outer_tile<1, TV, PART>(a, b, b_row, c, c_row, depth, part);
}

static void outer(Matrix a, const float* b, long b_row, float* c, long c_row, long rows, long columns, long depth) {
  constexpr long MOST = ACCUMULATORS / 4;
  long vectors = (columns + LANES - 1) / LANES, tiles = (vectors + MOST - 1) / MOST;
  Part part(columns % LANES);
  for (long tile = 0, from = 0; tile < tiles; tile++) {
    long width = (vectors - from + tiles - tile - 1) / (tiles - tile);  // what is left, in even parts
    bool is_part = tile == tiles - 1 && columns % LANES != 0;
    const float* of_b = b + from * LANES;
    float* of_c = c + from * LANES;
    switch (2 * width + is_part) {
#define CASE(TV)                                                                                    \
  case 2 * TV: outer_columns<TV, false>(a, of_b, b_row, of_c, c_row, rows, depth, part); break;     \
  case 2 * TV + 1: outer_columns<TV, true>(a, of_b, b_row, of_c, c_row, rows, depth, part); break;
      CASE(1) CASE(2) CASE(3)
#if defined(__AVX512F__) || defined(__aarch64__)
      CASE(4) CASE(5) CASE(6)
#endif
#undef CASE
    }
    from += width;
  }
}

// ---- inner

// So much of the depth at a time that the rows of A that are used again lie in the nearest cache.
constexpr long DEPTH_AT_A_TIME = 1024;

template <int TM, int TN>
INLINE void inner_tile(Matrix a, Matrix b, float* c, long c_row, long c_column, long depth, bool add) {
  constexpr int SUMS = (TM * TN + LANES - 1) / LANES * LANES;
  Vector sum[SUMS] = {};
  long k = 0;
#pragma GCC unroll 1
  for (; k + LANES <= depth; k += LANES) {
    Vector x[TN];
#pragma GCC unroll 24
    for (int j = 0; j < TN; j++) x[j] = held(load(b.at + j * b.column + k));
#pragma GCC unroll 24
    for (int i = 0; i < TM; i++) {
      Vector y = held(load(a.at + i * a.row + k));
#pragma GCC unroll 24
      for (int j = 0; j < TN; j++) sum[i * TN + j] = multiply_add(y, x[j], sum[i * TN + j]);
    }
  }
  if (k < depth) {
    Part part(depth - k);
    Vector x[TN];
#pragma GCC unroll 24
    for (int j = 0; j < TN; j++) x[j] = part.load(b.at + j * b.column + k);
#pragma GCC unroll 24
    for (int i = 0; i < TM; i++) {
      Vector y = part.load(a.at + i * a.row + k);
#pragma GCC unroll 24
      for (int j = 0; j < TN; j++) sum[i * TN + j] = multiply_add(y, x[j], sum[i * TN + j]);
    }
  }
  float total[SUMS];
#pragma GCC unroll 24
  for (int s = 0; s < TM * TN; s += LANES) store(total + s, lane_sums(sum + s));
  if (TN >= 4 && c_column == 1 && !add) {
#pragma GCC unroll 24
    for (int i = 0; i < TM; i++) memcpy(c + i * c_row, total + i * TN, sizeof(float[TN]));
    return;
  }
#pragma GCC unroll 24
  for (int i = 0; i < TM; i++)
#pragma GCC unroll 24
    for (int j = 0; j < TN; j++) {
      float* p = c + i * c_row + j * c_column;
      *p = add ? *p + total[i * TN + j] : total[i * TN + j];
    }
}

template <int TN>
static void inner_columns(Matrix a, Matrix b, float* c, long c_row, long c_column, long rows, long depth, bool add) {
  long m = 0;
  for (; m + 4 <= rows; m += 4) inner_tile<4, TN>({a.at + m * a.row, a.row, 1}, b, c + m * c_row, c_row, c_column, depth, add);
  a.at += m * a.row;
  c += m * c_row;
  if (rows - m == 3) inner_tile<3, TN>(a, b, c, c_row, c_column, depth, add);
  if (rows - m == 2) inner_tile<2, TN>(a, b, c, c_row, c_column, depth, add);
  if (rows - m == 1) inner_tile<1, TN>(a, b, c, c_row, c_column, depth, add);
}

static void inner(Matrix a, Matrix b, float* c, long c_row, long c_column, long rows, long columns, long depth) {
  // As many columns at a time as leave registers for a column of each and for a row.
  constexpr long MOST = LANES == 16 ? 6 : LANES == 8 ? 2 : 4;
  long tiles = (columns + MOST - 1) / MOST;
  for (long k = 0; k < depth; k += DEPTH_AT_A_TIME) {
    long some = depth - k < DEPTH_AT_A_TIME ? depth - k : DEPTH_AT_A_TIME;
    Matrix x = {a.at + k, a.row, 1};
    for (long tile = 0, n = 0; tile < tiles; tile++) {
      long width = (columns - n + tiles - tile - 1) / (tiles - tile);  // what is left, in even parts
      Matrix y = {b.at + n * b.column + k, 1, b.column};
      float* of_c = c + n * c_column;
      switch (width) {
#define CASE(TN) case TN: inner_columns<TN>(x, y, of_c, c_row, c_column, rows, some, k > 0); break;
        CASE(1) CASE(2)
#if !(defined(__AVX2__) && defined(__FMA__)) || defined(__AVX512F__)
        CASE(3) CASE(4)
#endif
#if defined(__AVX512F__)
        CASE(5) CASE(6)
#endif
#undef CASE
      }
      n += width;
    }
  }
}

// False, and nothing done, where the matrices lie in a way that neither of the two can take.
static bool product(Matrix a, Matrix b, float* c, long c_row, long c_column, long rows, long columns, long depth) {
  if (b.column == 1 && c_column == 1) outer(a, b.at, b.row, c, c_row, rows, columns, depth);
  else if (a.column == 1 && b.row == 1) inner(a, b, c, c_row, c_column, rows, columns, depth);
  else if (a.row == 1 && c_row == 1) outer({b.at, b.column, b.row}, a.at, a.column, c, c_column, columns, rows, depth);
  else return false;
  return true;
}
