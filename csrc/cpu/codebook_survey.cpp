#include "codebook_survey.h"

#include "convert.h"
#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t chunk_codes = 128;
constexpr uint32_t infinity_bits = 0x7f800000u;
constexpr int mantissa_bits = 23;
constexpr int size_not_finite = 255;

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

// Sums of codes by chunk of the codebook.
struct ChunkSums {
  int64_t num_chunks, dim;
  Buffer<float> sums;      // (num_chunks, D)
  Buffer<int64_t> counts;  // (num_chunks,)

  ChunkSums(int64_t num_codes, int64_t code_dim)
      : num_chunks((num_codes + chunk_codes - 1) / chunk_codes),
        dim(code_dim),
        sums(num_chunks * code_dim),
        counts(num_chunks) {}

  void clear(int64_t chunk) const {
    counts[chunk] = 0;
    for (int64_t i = 0; i < dim; ++i) sums[chunk * dim + i] = 0.0f;
  }

  void add(int64_t chunk, const float* code) const {
    float* sum = sums.data() + chunk * dim;
    ++counts[chunk];
    for (int64_t i = 0; i < dim; ++i) sum[i] += code[i];
  }

  // Writes the centre of codes whose |c_i| are at most `most` and returns its largest magnitude.
  float centre(float most, double* shift) const {
    float largest = 0.0f;
    for (int64_t i = 0; i < padded(dim); ++i) {
      const float mean =
          i < dim ? median_mean(sums.data() + i, dim, counts.data(), num_chunks) : 0.0f;
      // A sum that has overflowed gives no mean; rounding must not carry it past the codes.
      const float size = __builtin_fabsf(mean);
      shift[i] = size <= most ? double(mean) : 0.0;
      if (size <= most && size > largest) largest = size;
    }
    return largest;
  }
};

struct Span {
  int64_t first, end;
};

Span codes_of_chunk(int64_t chunk, int64_t num_codes) {
  const int64_t first = chunk * chunk_codes;
  return {first, num_codes - first < chunk_codes ? num_codes : first + chunk_codes};
}

// Where the sizes of codes have gaps. A size is the exponent field of the largest |c_i|.
struct Gaps {
  static constexpr int empty_sizes = 2;

  int num_shells;
  uint8_t shell_of_size[size_not_finite + 1];
  int largest[CodebookSurvey::most_shells];  // size in a shell
  int smallest;                              // size of all

  // sizes: (K,). The shells are found from the largest down: the last one takes what is left.
  Gaps(const uint8_t* sizes, int64_t num_codes) : num_shells(0), largest{}, smallest(0) {
    bool found[size_not_finite + 1] = {};
    for (int64_t k = 0; k < num_codes; ++k) found[sizes[k]] = true;
    const auto each_from_above = [&](const auto& take) {
      int empty = empty_sizes, shells = 0;
      for (int size = size_not_finite - 1; size >= 0; --size) {
        if (!found[size]) {
          ++empty;
          continue;
        }
        if (empty >= empty_sizes && shells < CodebookSurvey::most_shells) ++shells;
        empty = 0;
        take(size, shells);
      }
    };
    each_from_above([&](int size, int shells) {
      num_shells = shells;
      smallest = size;
    });
    for (uint8_t& shell : shell_of_size) shell = size_not_finite;
    each_from_above([&](int size, int shells) {
      const int shell = num_shells - shells;
      shell_of_size[size] = uint8_t(shell);
      if (size > largest[shell]) largest[shell] = size;
    });
  }

  int fullest_shell(const uint8_t* sizes, int64_t num_codes) const {
    int64_t codes[CodebookSurvey::most_shells] = {};
    for (int64_t k = 0; k < num_codes; ++k)
      if (sizes[k] != size_not_finite) ++codes[shell_of_size[sizes[k]]];
    int shell = 0;
    for (int s = 1; s < num_shells; ++s)
      if (codes[s] > codes[shell]) shell = s;
    return shell;
  }
};

}  // namespace

CodebookSurvey::CodebookSurvey(const float* codebook, int64_t num_codes, int64_t dim,
                               bool with_hashes, int threads)
    : shift(padded(dim)), hashes(with_hashes ? num_codes : 0), shells(num_codes) {
  const Buffer<uint32_t> factors(with_hashes ? dim : 0);
  if (with_hashes) fill_factors(factors.data(), dim);
  const ChunkSums chunks(num_codes, dim);
  const Buffer<uint32_t> largest(chunks.num_chunks);
  const Buffer<int64_t> first_finites(chunks.num_chunks);

  parallel_for(chunks.num_chunks, threads, [&](int64_t chunk, int) {
    chunks.clear(chunk);
    uint32_t chunk_largest = 0;
    int64_t first_finite_code = -1;
    const Span span = codes_of_chunk(chunk, num_codes);
    for (int64_t k = span.first; k < span.end; ++k) {
      const float* code = codebook + k * dim;
      const uint32_t magnitude = largest_magnitude(code, dim);
      const bool is_finite = magnitude < infinity_bits;
      if (with_hashes) hashes[k] = is_finite ? hash(code, factors.data(), dim) : 0;
      shells[k] = uint8_t(is_finite ? magnitude >> mantissa_bits : size_not_finite);
      if (!is_finite) continue;
      if (first_finite_code < 0) first_finite_code = k;
      chunk_largest = magnitude > chunk_largest ? magnitude : chunk_largest;
      chunks.add(chunk, code);
    }
    largest[chunk] = chunk_largest;
    first_finites[chunk] = first_finite_code;
  });

  uint32_t overall = 0;
  first_finite = -1;
  for (int64_t chunk = 0; chunk < chunks.num_chunks; ++chunk) {
    overall = largest[chunk] > overall ? largest[chunk] : overall;
    if (first_finite < 0) first_finite = first_finites[chunk];
  }
  reach = float_of_bits(overall);

  const Gaps gaps(shells.data(), num_codes);
  num_shells = gaps.num_shells;
  least_reach = float_of_bits(uint32_t(gaps.smallest + 1) << mantissa_bits);
  int centre_shell = -1;
  if (num_shells <= 1) {
    chunks.centre(reach, shift.data());
  } else {
    centre_shell = gaps.fullest_shell(shells.data(), num_codes);
    for (int64_t k = 0; k < num_codes; ++k) shells[k] = gaps.shell_of_size[shells[k]];
  }
  // The rows are taken to be where most codes are. But a shell whose codes point everywhere has a
  // centre that is of no use to them, and that can be far from the smaller codes.
  for (int shell = centre_shell; shell >= 0; --shell) {
    parallel_for(chunks.num_chunks, threads, [&](int64_t chunk, int) {
      chunks.clear(chunk);
      const Span span = codes_of_chunk(chunk, num_codes);
      for (int64_t k = span.first; k < span.end; ++k)
        if (shells[k] == shell) chunks.add(chunk, codebook + k * dim);
    });
    const float most = float_of_bits((uint32_t(gaps.largest[shell] + 1) << mantissa_bits) - 1);
    if (chunks.centre(most, shift.data()) >= 0.125f * most) break;
  }
  double square = 0.0;
  for (int64_t i = 0; i < padded(dim); ++i) square += shift[i] * shift[i];
  scale = reach > 0.0f ? __builtin_ldexp(1.0, -__builtin_ilogb(reach) - 1) : 1.0;
  shift_norm = scale * __builtin_sqrt(square);
}

CodebookSurvey::~CodebookSurvey() = default;

}  // namespace vqk::VQK_LEVEL
