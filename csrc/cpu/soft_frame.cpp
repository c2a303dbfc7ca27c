#include "soft_frame.h"

#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// Products of this size, added over any number of channels, stay in float32. A row that far off is
// brought here along its direction: no float32 row could tell the codes apart from there.
constexpr double farthest = 0x1p100;

// The largest |c_i - mu_i| of a finite code. Not the survey's reach, which measures from the
// origin: codes may lie far from it and close to each other.
double spread(const CodebookSurvey& survey, const float* codebook, int64_t num_codes, int64_t dim,
              int threads) {
  constexpr int64_t chunk_codes = 1024;
  const int64_t num_chunks = (num_codes + chunk_codes - 1) / chunk_codes;
  const Buffer<double> largest(num_chunks);
  parallel_for(num_chunks, threads, [&](int64_t chunk, int) {
    const int64_t first = chunk * chunk_codes;
    const int64_t end = num_codes - first < chunk_codes ? num_codes : first + chunk_codes;
    double most = 0.0;
    for (int64_t k = first; k < end; ++k) {
      const float* code = codebook + k * dim;
      if (!all_finite(code, dim)) continue;
      for (int64_t i = 0; i < dim; ++i) {
        const double size = __builtin_fabs(double(code[i]) - survey.shift[i]);
        most = size > most ? size : most;
      }
    }
    largest[chunk] = most;
  });
  double overall = 0.0;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk)
    overall = largest[chunk] > overall ? largest[chunk] : overall;
  return overall;
}

double at_least_one(double value) { return value > 1.0 ? value : 1.0; }

void clear_columns(float* columns, int64_t first, int64_t width, int64_t dim, float front) {
  for (int64_t v = first; v < width; ++v) {
    columns[v] = front;
    for (int64_t i = 1; i <= dim; ++i) columns[i * width + v] = 0.0f;
  }
}

void write_centred(const float* from, const double* shift, bool takes_part, int64_t dim,
                   float* to) {
  for (int64_t i = 0; i < dim; ++i) to[i] = takes_part ? float(double(from[i]) - shift[i]) : 0.0f;
  for (int64_t i = dim; i < pull_width(dim); ++i) to[i] = 0.0f;
}

}  // namespace

SoftFrame::SoftFrame(const float* codebook, int64_t num_codes, int64_t code_dim,
                     double soft_temperature, int threads)
    : dim(code_dim),
      survey(codebook, num_codes, code_dim, false, threads),
      reach(spread(survey, codebook, num_codes, code_dim, threads)),
      sharpness(at_least_one(double(code_dim) * reach * reach * 0x1p-40 / soft_temperature)),
      temperature(sharpness * soft_temperature),
      gain(2.0 / (survey.scale * temperature)) {}

SoftFrame::~SoftFrame() = default;

void SoftFrame::pack_codes(const float* codes, int64_t count, int64_t width, float* columns,
                           float* centred) const {
  const double* shift = survey.shift.data();
  const double units = 0.5 * gain / survey.scale;
  for (int64_t v = 0; v < count; ++v) {
    const float* code = codes + v * dim;
    const bool finite = all_finite(code, dim);
    double square = 0.0;
    for (int64_t i = 0; i < dim; ++i) {
      const float value = finite ? float((double(code[i]) - shift[i]) * survey.scale) : 0.0f;
      square += double(value) * double(value);
      columns[(1 + i) * width + v] = value;
    }
    columns[v] = finite ? -float(square * units) : -__builtin_inff();
    if (centred != nullptr) write_centred(code, shift, finite, dim, centred + v * pull_width(dim));
  }
  clear_columns(columns, count, width, dim, -__builtin_inff());
}

void SoftFrame::pack_rows(const float* tile, const uint8_t* mask, int64_t count, int64_t width,
                          float* columns, float* centred, double* constants) const {
  const double* shift = survey.shift.data();
  const double per_square = 0.25 * survey.scale * survey.scale * temperature;
  for (int64_t v = 0; v < count; ++v) {
    const float* row = tile + v * padded(dim);
    const bool takes_part = (mask == nullptr || mask[v] != 0) && all_finite(row, dim);
    double largest = 0.0;
    for (int64_t i = 0; takes_part && i < dim; ++i) {
      const double size = __builtin_fabs(double(row[i]) - shift[i]);
      largest = size > largest ? size : largest;
    }
    const double factor = largest * gain > farthest ? farthest / largest : gain;
    // What is left out by rounding must be left out of the constant too: near a code the two
    // cancel. Each column is therefore squared as it is stored.
    double square = 0.0;
    for (int64_t i = 0; i < dim; ++i) {
      const float value = takes_part ? float((double(row[i]) - shift[i]) * factor) : 0.0f;
      square += double(value) * double(value);
      columns[(1 + i) * width + v] = value;
    }
    columns[v] = 1.0f;
    const double scale = gain / factor;
    constants[v] = takes_part ? square * scale * scale * per_square : __builtin_inf();
    if (centred != nullptr)
      write_centred(row, shift, takes_part, dim, centred + v * pull_width(dim));
  }
  clear_columns(columns, count, width, dim, 1.0f);
}

StreamedCodes::StreamedCodes(const SoftFrame& frame, const float* codebook, int64_t codes,
                             bool with_centred, int threads)
    : num_codes(codes),
      dim(frame.dim),
      columns(stream_tiles(codes) * tile_rows * (1 + frame.dim)),
      centred(with_centred ? codes * pull_width(frame.dim) : 0) {
  parallel_for(stream_tiles(codes), threads, [&](int64_t t, int) {
    const int64_t first = t * tile_rows, left = codes - first;
    frame.pack_codes(codebook + first * dim, left < tile_rows ? left : tile_rows, tile_rows,
                     columns.data() + first * (1 + dim),
                     with_centred ? centred.data() + first * pull_width(dim) : nullptr);
  });
}

StreamedCodes::~StreamedCodes() = default;

}  // namespace vqk::VQK_LEVEL
