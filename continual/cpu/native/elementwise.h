// Functions of vectors of numbers, in place of those with which the compiler's kernels are slow
// (continual/cpu/kernels.py puts this text into their sources).
namespace continual {

// first, first + 1, ...: at::vec puts a vector together number by number where the first is no constant.
inline at::vec::Vectorized<int32_t> counted(int32_t first) {
  return at::vec::Vectorized<int32_t>::arange(0, 1) + at::vec::Vectorized<int32_t>(first);
}

template <class V>
inline V root(const V& x) { return x.sqrt(); }
template <class V>
inline V logarithm(const V& x) { return x.log(); }
template <class V>
inline V cosine(const V& x) { return x.cos(); }
template <class V>
inline V exponential(const V& x) { return x.exp(); }

#if defined(CPU_CAPABILITY_AVX512)
using Floats = at::vec::Vectorized<float>;
inline __m512 every(float x) { return _mm512_set1_ps(x); }
inline __m512 nearest(__m512 x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// One unit does all divisions and roots, and Adam needs both for every weight. Here is a guess of 14 bits and one
// of Newton's steps. 0 and infinity are their own roots.
inline Floats root(const Floats& x) {
  __m512 v = x;
  __mmask16 others = _knot_mask16(_mm512_fpclass_ps_mask(v, 0x0e));  // neither 0, -0 nor infinity
  __m512 guess = _mm512_maskz_rsqrt14_ps(others, v), y = _mm512_mask_mul_ps(v, others, v, guess);
  __m512 half = y * every(.5f), wrong = _mm512_fnmadd_ps(y, guess, every(1.f));
  return _mm512_mask3_fmadd_ps(wrong, half, y, others);
}

// The three below stand in a kernel's loop, where at::vec calls a library, before which all registers are put
// away. What they cannot do, they leave to it. The polynomials are those of Cephes and of Sleef.

// x = m 2^e with m about 1, and the logarithm of m as a polynomial of m - 1.
inline Floats logarithm(const Floats& x) {
  __m512 v = x;
  // No number above 0, or one that overflows below.
  __mmask16 others = _mm512_fpclass_ps_mask(v, 0xff) | _mm512_cmp_ps_mask(v, every(2.4e38f), _CMP_GT_OQ);
  if (others) [[unlikely]] return x.log();
  __m512 e = _mm512_getexp_ps(v * every(1.41421356f)), m = _mm512_scalef_ps(v, every(0.f) - e), f = m - every(1.f);
  __m512 p = every(7.0376836292e-2f) * f + every(-1.1514610310e-1f);
  p = p * f + every(1.1676998740e-1f);
  p = p * f + every(-1.2420140846e-1f);
  p = p * f + every(1.4249322787e-1f);
  p = p * f + every(-1.6668057665e-1f);
  p = p * f + every(2.0000714765e-1f);
  p = p * f + every(-2.4999993993e-1f);
  p = p * f + every(3.3333331174e-1f);
  __m512 square = f * f, y = p * f * square + e * every(-2.12194440e-4f);
  return f + (y - every(.5f) * square) + e * every(.693359375f);
}

// cos x = -+sin(x - q pi/2) for the odd q next to x / (pi/2), as a polynomial.
inline Floats cosine(const Floats& x) {
  __m512 v = x;
  if (_mm512_cmp_ps_mask(_mm512_abs_ps(v), every(125.f), _CMP_NLT_UQ)) [[unlikely]] return x.cos();
  __m512 q = nearest(v * every(.318309886f) - every(.5f)) * every(2.f) + every(1.f);
  __m512 r = v + q * every(-3.1414794921875f / 2) + q * every(-.00011315941810607910156f / 2);
  r = r + q * every(-1.9841872589410058936e-9f / 2);
  // The sign of sin is turned around for q = 1, 5, ... (q & 2 is 0).
  __m512i turned = _mm512_slli_epi32(_mm512_andnot_si512(_mm512_cvtps_epi32(q), _mm512_set1_epi32(2)), 30);
  r = (__m512)_mm512_xor_si512((__m512i)r, turned);
  __m512 square = r * r, p = every(2.6083159809786593541503e-6f) * square + every(-.0001981069071916863322258f);
  p = p * square + every(.00833307858556509017944336f);
  p = p * square + every(-.166666597127914428710938f);
  return square * (p * r) + r;
}

// e^x = 2^q e^r for the nearest q, with e^r as a polynomial.
inline Floats exponential(const Floats& x) {
  __m512 v = x, q = nearest(v * every(1.44269504f));
  __m512 r = q * every(-.693145751953125f) + v;
  r = q * every(-1.428606765330187045e-6f) + r;
  __m512 p = every(.000198527617612853646278381f) * r + every(.00139304355252534151077271f);
  p = p * r + every(.00833336077630519866943359f);
  p = p * r + every(.0416664853692054748535156f);
  p = p * r + every(.166666671633720397949219f);
  p = p * r + every(.5f);
  __m512 y = _mm512_scalef_ps(r * r * p + r + every(1.f), q);
  return _mm512_cmp_ps_mask(_mm512_abs_ps(v), every(80.f), _CMP_NLT_UQ) ? x.exp() : Floats(y);
}
#endif

}  // namespace continual
