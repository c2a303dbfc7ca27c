#include "codebook_survey.h"

#include "convert.h"
#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t chunk_codes = 128;
constexpr uint32_t infinity_bits = 0x7f800000u;

// The factors of a multilinear hash; odd, from a Weyl sequence.
void fill_factors(uint32_t* factors, int64_t dim) {
  uint64_t state = 0;
  for (int64_t i = 0; i < dim; ++i) {
    state += 0x9e3779b97f4a7c15u;
    const uint64_t mixed = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    factors[i] = uint32_t(mixed >> 32) | 1u;
  }
}

uint32_t largest_magnitude(const float* code, int64_t dim) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const uint32_t magnitude = bits_of_float(code[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// Equal values hash alike: -0 + 0 is 0.
uint64_t hash(const float* code, const uint32_t* factors, int64_t dim) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < dim; ++i)
    sum += uint64_t(bits_of_float(code[i] + 0.0f)) * uint64_t(factors[i]);
  sum = (sum ^ (sum >> 32)) * 0x9e3779b97f4a7c15u;
  return (sum ^ (sum >> 29)) | 1u;
}

// The median of the means of at most `most` chunks spread over the codebook: one code far away must
// not move the centre of the others. sums and finite are those of the chunks, `stride` apart and
// dense.
float median_mean(const float* sums, int64_t stride, const int64_t* finite, int64_t num_chunks) {
  constexpr int64_t most = 15;
  float means[most];
  int64_t count = 0;
  const int64_t samples = num_chunks < most ? num_chunks : most;
  for (int64_t s = 0; s < samples; ++s) {
    const int64_t chunk = s * num_chunks / samples;
    if (finite[chunk] == 0) continue;
    const float mean = sums[chunk * stride] / float(finite[chunk]);
    int64_t at = count++;
    for (; at > 0 && means[at - 1] > mean; --at) means[at] = means[at - 1];
    means[at] = mean;
  }
  return count > 0 ? means[count / 2] : 0.0f;
}

}  // namespace

CodebookSurvey::CodebookSurvey(const float* codebook, int64_t num_codes, int64_t dim,
                               bool with_hashes, int threads)
    : shift(padded(dim)), hashes(with_hashes ? num_codes : 0) {
  const int64_t num_chunks = (num_codes + chunk_codes - 1) / chunk_codes;
  const Buffer<uint32_t> factors(with_hashes ? dim : 0);
  if (with_hashes) fill_factors(factors.data(), dim);
  const Buffer<float> sums(num_chunks * dim);
  const Buffer<uint32_t> largest(num_chunks);
  const Buffer<int64_t> finite(num_chunks), first_finites(num_chunks);

  parallel_for(num_chunks, threads, [&](int64_t chunk, int) {
    float* sum = sums.data() + chunk * dim;
    for (int64_t i = 0; i < dim; ++i) sum[i] = 0.0f;
    uint32_t chunk_largest = 0;
    int64_t count = 0, first_finite_code = -1;
    const int64_t first = chunk * chunk_codes;
    const int64_t end = num_codes - first < chunk_codes ? num_codes : first + chunk_codes;
    for (int64_t k = first; k < end; ++k) {
      const float* code = codebook + k * dim;
      const uint32_t magnitude = largest_magnitude(code, dim);
      const bool is_finite = magnitude < infinity_bits;
      if (with_hashes) hashes[k] = is_finite ? hash(code, factors.data(), dim) : 0;
      if (!is_finite) continue;
      if (count++ == 0) first_finite_code = k;
      chunk_largest = magnitude > chunk_largest ? magnitude : chunk_largest;
      for (int64_t i = 0; i < dim; ++i) sum[i] += code[i];
    }
    largest[chunk] = chunk_largest;
    finite[chunk] = count;
    first_finites[chunk] = first_finite_code;
  });

  uint32_t overall = 0;
  first_finite = -1;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    overall = largest[chunk] > overall ? largest[chunk] : overall;
    if (first_finite < 0) first_finite = first_finites[chunk];
  }
  reach = float_of_bits(overall);
  double square = 0.0;
  for (int64_t i = 0; i < padded(dim); ++i) {
    const float centre = i < dim ? median_mean(sums.data() + i, dim, finite.data(), num_chunks) : 0;
    // A sum that has overflowed gives no mean; rounding must not carry it past the codes.
    shift[i] = __builtin_fabsf(centre) <= reach ? double(centre) : 0.0;
    square += shift[i] * shift[i];
  }
  scale = reach > 0.0f ? __builtin_ldexp(1.0, -__builtin_ilogb(reach) - 1) : 1.0;
  shift_norm = scale * __builtin_sqrt(square);
}

CodebookSurvey::~CodebookSurvey() = default;

}  // namespace vqk::VQK_LEVEL
