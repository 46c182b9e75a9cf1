// A multi-layer perceptron trained on one image at a step, as a C program would do it: forwards, softmax and
// cross-entropy, backwards and the update (SGD or Adam) in one pass over each weight, in one thread.
#include <math.h>
#include <stdint.h>

enum { MOST_LAYERS = 8, MOST_UNITS = 2048 };

static const float BETA1 = 0.9f, BETA2 = 0.999f, EPS = 1e-8f;

static float dot(const float *restrict a, const float *restrict b, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static void sgd(float *restrict w, const float *restrict x, float g, float lr, int64_t n) {
  for (int64_t i = 0; i < n; i++) w[i] -= lr * g * x[i];
}

static void adam(float *restrict w, float *restrict m, float *restrict v, const float *restrict x, float g, float lr,
                 float second, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    float gradient = g * x[i];
    m[i] = BETA1 * m[i] + (1 - BETA1) * gradient;
    v[i] = BETA2 * v[i] + (1 - BETA2) * gradient * gradient;
    w[i] -= lr * m[i] / (sqrtf(v[i]) * second + EPS);
  }
}

static void add(float *restrict sum, const float *restrict w, float g, int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] += g * w[i];
}

// Steps on images[order[0]], ... of `widths[0]` numbers each; `widths` has layers + 1 entries. Parameters lie layer
// by layer, the weights [outputs][inputs] and then the biases; so do the two moments, one after the other, which
// are NULL with SGD. `done` steps were done before. Returns how many were classified as labelled.
int64_t train(int64_t steps, const int64_t *order, const float *images, const int64_t *labels, int64_t layers,
              const int64_t *widths, float *params, float *moments, int64_t size, float lr, int64_t done) {
  static float h[MOST_LAYERS + 1][MOST_UNITS], grad[2][MOST_UNITS];
  const float one = 1;
  int64_t correct = 0;
  for (int64_t step = 0; step < steps; step++) {
    const float *x = images + order[step] * widths[0];
    float *layer = params;
    for (int64_t l = 0; l < layers; l++) {
      int64_t in = widths[l], out = widths[l + 1];
      const float *from = l ? h[l] : x, *bias = layer + in * out;
      for (int64_t o = 0; o < out; o++) {
        float y = dot(layer + o * in, from, in) + bias[o];
        h[l + 1][o] = l + 1 < layers && y < 0 ? 0 : y;
      }
      layer += (in + 1) * out;
    }
    int64_t classes = widths[layers], best = 0;
    float *logits = h[layers], *g = grad[0], *next = grad[1], sum = 0;
    for (int64_t k = 1; k < classes; k++) best = logits[k] > logits[best] ? k : best;
    for (int64_t k = 0; k < classes; k++) sum += g[k] = expf(logits[k] - logits[best]);
    for (int64_t k = 0; k < classes; k++) g[k] = g[k] / sum - (k == labels[order[step]]);
    correct += best == labels[order[step]];

    float t = (float)(done + step + 1), first = lr / (1 - powf(BETA1, t)), second = 1 / sqrtf(1 - powf(BETA2, t));
    for (int64_t l = layers - 1; l >= 0; l--) {
      int64_t in = widths[l], out = widths[l + 1];
      const float *from = l ? h[l] : x;
      layer -= (in + 1) * out;
      float *m = moments ? moments + (layer - params) : 0, *v = moments ? m + size : 0;
      for (int64_t i = 0; l && i < in; i++) next[i] = 0;
      for (int64_t o = 0; o < out; o++) {
        float *w = layer + o * in;
        int64_t bias = in * out + o;
        if (l) add(next, w, g[o], in);
        if (moments) {
          adam(w, m + o * in, v + o * in, from, g[o], first, second, in);
          adam(layer + bias, m + bias, v + bias, &one, g[o], first, second, 1);
        } else {
          sgd(w, from, g[o], lr, in);
          layer[bias] -= lr * g[o];
        }
      }
      for (int64_t i = 0; l && i < in; i++) next[i] = from[i] > 0 ? next[i] : 0;
      float *swap = g;
      g = next;
      next = swap;
    }
  }
  return correct;
}
