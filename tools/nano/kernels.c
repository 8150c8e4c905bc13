// Small CPU kernels of the nano trainer: the mHC Sinkhorn normalisation (forward and backward) and the
// FP8 / FP4 quantise-dequantise roundings on bfloat16 rows. Called through ctypes; built on first use.
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define EPS 1e-6f
#define MAX_STEPS 64

static inline float bf_to_f(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint16_t f_to_bf(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}
static inline uint32_t bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}
static inline float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

typedef float Mat[16][LANES];

// One normalisation: y = x / (sum + eps) over rows (stride 1) or columns (stride 4).
static inline void normalise(Mat y, Mat x, int columns) {
  for (int g = 0; g < 4; ++g) {
    int base = columns ? g : 4 * g, step = columns ? 4 : 1;
    float s[LANES];
    for (int l = 0; l < LANES; ++l)
      s[l] = 1.0f / (x[base][l] + x[base + step][l] + x[base + 2 * step][l] + x[base + 3 * step][l] + EPS);
    for (int i = 0; i < 4; ++i)
      for (int l = 0; l < LANES; ++l) y[base + i * step][l] = x[base + i * step][l] * s[l];
  }
}
static inline void softmax_rows(Mat y, Mat x) {
  for (int r = 0; r < 4; ++r) {
    float m[LANES], s[LANES];
    for (int l = 0; l < LANES; ++l) {
      float a = x[4 * r][l], b = x[4 * r + 1][l], c = x[4 * r + 2][l], d = x[4 * r + 3][l];
      float ab = a > b ? a : b, cd = c > d ? c : d;
      m[l] = ab > cd ? ab : cd;
      s[l] = 0;
    }
    for (int k = 0; k < 4; ++k)
      for (int l = 0; l < LANES; ++l) {
        y[4 * r + k][l] = expf(x[4 * r + k][l] - m[l]);
        s[l] += y[4 * r + k][l];
      }
    for (int k = 0; k < 4; ++k)
      for (int l = 0; l < LANES; ++l) y[4 * r + k][l] /= s[l];
  }
}
static inline void load(Mat a, const float* p, long n) {
  for (int i = 0; i < 16; ++i)
    for (int l = 0; l < LANES; ++l) a[i][l] = l < n ? p[l * 16 + i] : 0.0f;
}
static inline void store(float* p, Mat a, long n) {
  for (long l = 0; l < n; ++l)
    for (int i = 0; i < 16; ++i) p[l * 16 + i] = a[i][l];
}

void sinkhorn_forward(const float* in, float* out, long n, int iters) {
#pragma omp parallel for schedule(static)
  for (long t = 0; t < n; t += LANES) {
    long m = n - t < LANES ? n - t : LANES;
    Mat a, b;
    load(a, in + t * 16, m);
    softmax_rows(b, a);
    for (int i = 0; i < 16; ++i)
      for (int l = 0; l < LANES; ++l) b[i][l] += EPS;
    normalise(b, b, 1);
    for (int k = 1; k < iters; ++k) {
      normalise(b, b, 0);
      normalise(b, b, 1);
    }
    store(out + t * 16, b, m);
  }
}

static inline void normalise_back(Mat g, Mat x, int columns) {
  for (int q = 0; q < 4; ++q) {
    int base = columns ? q : 4 * q, step = columns ? 4 : 1;
    for (int l = 0; l < LANES; ++l) {
      float s = 1.0f / (x[base][l] + x[base + step][l] + x[base + 2 * step][l] + x[base + 3 * step][l] + EPS);
      float dot = 0;
      for (int i = 0; i < 4; ++i) dot += g[base + i * step][l] * x[base + i * step][l];
      dot *= s;
      for (int i = 0; i < 4; ++i) g[base + i * step][l] = (g[base + i * step][l] - dot) * s;
    }
  }
}

void sinkhorn_backward(const float* in, const float* grad, float* out, long n, int iters) {
#pragma omp parallel for schedule(static)
  for (long t = 0; t < n; t += LANES) {
    long m = n - t < LANES ? n - t : LANES;
    Mat a, soft, g;
    Mat trail[MAX_STEPS];
    load(a, in + t * 16, m);
    load(g, grad + t * 16, m);
    softmax_rows(soft, a);
    for (int i = 0; i < 16; ++i)
      for (int l = 0; l < LANES; ++l) trail[0][i][l] = soft[i][l] + EPS;
    int steps = 2 * iters - 1;
    for (int k = 0; k + 1 < steps; ++k) normalise(trail[k + 1], trail[k], (k & 1) == 0);
    for (int k = steps - 1; k >= 0; --k) normalise_back(g, trail[k], (k & 1) == 0);
    for (int r = 0; r < 4; ++r)
      for (int l = 0; l < LANES; ++l) {
        float dot = 0;
        for (int k = 0; k < 4; ++k) dot += g[4 * r + k][l] * soft[4 * r + k][l];
        for (int k = 0; k < 4; ++k) g[4 * r + k][l] = soft[4 * r + k][l] * (g[4 * r + k][l] - dot);
      }
    store(out + t * 16, g, m);
  }
}

// Quantise-dequantise the first `width` values of each bfloat16 row to E4M3, one power-of-two scale per group.
void fp8q_rows(uint16_t* x, long rows, long stride, long width, long group) {
#pragma omp parallel for schedule(static)
  for (long r = 0; r < rows; ++r)
    for (long b = 0; b < width; b += group) {
      uint16_t* p = x + r * stride + b;
      uint32_t top = 0;
      for (long i = 0; i < group; ++i) {
        uint32_t u = (uint32_t)(p[i] & 0x7FFF) << 16;
        top = u > top ? u : top;
      }
      float a = from_bits(top);
      if (!(a > 1e-4f)) a = 1e-4f;
      uint32_t u = bits(a * (1.0f / 448.0f));
      uint32_t e = (u >> 23) + ((u & 0x7FFFFF) != 0);
      float s = from_bits(e << 23), inv = from_bits((254 - e) << 23);
      for (long i = 0; i < group; ++i) {
        float y = bf_to_f(p[i]) * inv;
        float base = from_bits(bits(y) & 0x7F800000);
        base = base > 0x1p-6f ? base : 0x1p-6f;
        float c = base * 0x1.8p20f;
        float q = (y + c) - c;
        q = q > 448.0f ? 448.0f : (q < -448.0f ? -448.0f : q);
        p[i] = f_to_bf(q * s);
      }
    }
}

// Quantise-dequantise bfloat16 values to E2M1 in groups of 32.
void fp4q_rows(uint16_t* x, long groups) {
#pragma omp parallel for schedule(static)
  for (long r = 0; r < groups; ++r) {
    uint16_t* p = x + r * 32;
    uint32_t top = 0;
    for (int i = 0; i < 32; ++i) {
      uint32_t u = (uint32_t)(p[i] & 0x7FFF) << 16;
      top = u > top ? u : top;
    }
    float a = from_bits(top), low = 6 * 0x1p-126f;
    if (!(a > low)) a = low;
    uint32_t u = bits(a * (1.0f / 6.0f));
    uint32_t e = (u >> 23) + ((u & 0x7FFFFF) != 0);
    float s = from_bits(e << 23), inv = from_bits((254 - e) << 23);
    for (int i = 0; i < 32; ++i) {
      float y = bf_to_f(p[i]) * inv, m = fabsf(y);
      float step = m < 2.0f ? 0.5f : (m < 4.0f ? 1.0f : 2.0f);
      float c = step * 0x1.8p23f;
      float q = (y + c) - c;
      q = q > 6.0f ? 6.0f : (q < -6.0f ? -6.0f : q);
      p[i] = f_to_bf(q * s);
    }
  }
}
