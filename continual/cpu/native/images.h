// A batch of images for the network: gathered from the stored ones, their pixels permuted and normalised.
#pragma once
#include <stdexcept>
#include <string>

#include "vectors.h"

struct Images {
  long stored, batch, channels, size;  // of stored images and of a batch; an image's channels and pixels
};

template <class Pixel>
static void images(Images of, const Pixel* pixels, const float* scale, const float* shift, const int64_t* rows,
                   const int64_t* permutation, float* out) {
  for (long i = 0; i < of.batch; i++)
    if ((uint64_t)rows[i] >= (uint64_t)of.stored) throw std::out_of_range("there is no image " + std::to_string(rows[i]));
  long plane = of.size / of.channels;
  if (!permutation) {
    for (long i = 0; i < of.batch; i++)
      for (long c = 0; c < of.channels; c++) {
        const Pixel* from = pixels + rows[i] * of.size + c * plane;
        float* to = out + i * of.size + c * plane;
        float s = scale[c], h = shift[c];
        for (long j = 0; j < plane; j++) to[j] = (float)from[j] * s + h;
      }
    return;
  }
  bool wrong = false;
  for (long j = 0; j < of.size; j++) wrong |= (uint64_t)permutation[j] >= (uint64_t)of.size;
  if (wrong) throw std::out_of_range("a permutation goes past the pixels of an image");
  // Four images share each look at the permutation; the pixels of a block are collected, then normalised.
  constexpr long BLOCK = 1024, TOGETHER = 4;
  for (long start = 0; start < of.size; start += BLOCK) {
    long count = of.size - start < BLOCK ? of.size - start : BLOCK;
    const int64_t* places = permutation + start;
    float s[BLOCK], h[BLOCK];
    for (long j = 0; j < count; j++) {
      long c = of.channels == 1 ? 0 : places[j] / plane;
      s[j] = scale[c];
      h[j] = shift[c];
    }
    for (long i = 0; i < of.batch; i += TOGETHER) {
      long together = of.batch - i < TOGETHER ? of.batch - i : TOGETHER;
      const Pixel* from[TOGETHER];
      for (long q = 0; q < TOGETHER; q++) from[q] = pixels + rows[i + (q < together ? q : 0)] * of.size;
      Pixel found[TOGETHER][BLOCK];
#pragma GCC unroll 4
      for (long j = 0; j < count; j++) {
        int64_t place = places[j];
        found[0][j] = from[0][place];
        found[1][j] = from[1][place];
        found[2][j] = from[2][place];
        found[3][j] = from[3][place];
      }
      for (long q = 0; q < together; q++) {
        float* to = out + (i + q) * of.size + start;
        for (long j = 0; j < count; j++) to[j] = (float)found[q][j] * s[j] + h[j];
      }
    }
  }
}
