#include "packed_codebook.h"

#include <cstring>

#include "bound.h"
#include "codebook_survey.h"
#include "distinct_codes.h"
#include "frame_code.h"
#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// Marks memory as packed by this version of this level.
constexpr uint64_t format_version = 2;
constexpr uint64_t format = 0x76716b0000000000u + format_version * 256 + uint64_t(lanes);

// sqrt(K / D) codes per group balance the exact pass against the scan over groups.
int64_t choose_band_panels(int64_t num_codes, int64_t dim) {
  int64_t panels = 4;
  while (panels < 16 && 4 * panels * panels * dim < num_codes) panels *= 2;
  return panels;
}

int64_t divided_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

}  // namespace

PackedCodebook::PackedCodebook(int64_t codebook_codes, int64_t code_dim, Metric code_metric,
                               void* memory)
    : num_codes(codebook_codes), dim(code_dim), metric(code_metric) {
  band_panels = choose_band_panels(num_codes, dim);
  group_codes = band_panels * panel_vectors;
  exact_lanes = padded(group_codes);
  panel_floats = (1 + dim) * panel_codes;
  set_positions(most_positions(), false);

  bytes = 0;
  const auto take = [&](int64_t count, int64_t size) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(memory) + uintptr_t(bytes);
    bytes += divided_up(count * size, 64) * 64;
    return reinterpret_cast<void*>(at);
  };
  const int64_t floats = sizeof(float);
  header_ = static_cast<Header*>(take(1, sizeof(Header)));
  shift_ = static_cast<double*>(take(padded(dim), sizeof(double)));
  ids = static_cast<int32_t*>(take(most_positions(), sizeof(int32_t)));
  reach = static_cast<float*>(take(num_groups, floats));
  curve = static_cast<float*>(take(num_groups, floats));
  beyond = static_cast<float*>(take(num_bands, floats));
  panels = static_cast<float*>(take(num_panels * panel_floats, floats));
  exact = static_cast<float*>(take(num_groups * exact_lanes * dim, floats));
  const int64_t without = bytes;
  kept_ = static_cast<float*>(take(num_codes * dim, floats));
  bytes_kept = bytes;
  bytes = without;
  frame = Frame{dim, metric, 1.0, 0.0, shift_};
}

// Every shell but the last one may leave a group nearly empty.
int64_t PackedCodebook::most_positions() const {
  return num_codes + (CodebookSurvey::most_shells - 1) * (group_codes - 1);
}

void PackedCodebook::set_positions(int64_t count, bool in_order) {
  num_positions = count;
  ascending = in_order;
  num_panels = divided_up(count, panel_codes);
  num_bands = divided_up(num_panels, band_panels);
  // A shell starts with a group, so all groups must have the same size.
  if (!ascending) num_panels = num_bands * band_panels;
  num_groups = num_bands * lanes;
}

// Takes the first `count` ids to the positions of their shells. Returns how many positions they
// need.
int64_t PackedCodebook::order_by_shell(const uint8_t* shells, int64_t count) const {
  constexpr int most = CodebookSurvey::most_shells;
  const Buffer<int32_t> from(count);
  std::memcpy(from.data(), ids, size_t(count) * sizeof(int32_t));
  int64_t sizes[most] = {}, next[most] = {}, end = 0;
  for (int64_t i = 0; i < count; ++i) ++sizes[shells[from[i]]];
  for (int shell = 0; shell < most; ++shell) {
    if (sizes[shell] == 0) continue;
    next[shell] = divided_up(end, group_codes) * group_codes;
    for (; end < next[shell]; ++end) ids[end] = -1;
    end += sizes[shell];
  }
  for (int64_t i = 0; i < count; ++i) ids[next[shells[from[i]]]++] = from[i];
  return end;
}

float PackedCodebook::norm_of_least(int64_t count) const {
  if (count == 1) return num_bands > 0 ? float(bound_slack * bound_slack) * beyond[0] : 0.0f;
  float most = 0.0f;
  for (int64_t group = 0, found = 0; group < num_groups; ++group) {
    const int64_t first = first_position(group);
    const int64_t end = first + panels_in_band(group / lanes) * panel_vectors;
    most = reach[group] > most ? reach[group] : most;
    for (int64_t p = first; p < end && p < num_positions; ++p) found += ids[p] >= 0;
    if (found >= count) return most;
  }
  return __builtin_inff();
}

void PackedCodebook::pack(const float* codebook, bool keep, int threads, int32_t* next) {
  const CodebookSurvey survey(codebook, num_codes, dim, true, threads);
  const int64_t count = distinct_codes(codebook, survey.hashes.data(), num_codes, dim, ids, next);
  const bool in_order = survey.num_shells <= 1 || metric == Metric::cosine;
  set_positions(in_order ? count : order_by_shell(survey.shells.data(), count), in_order);
  frame.scale = survey.scale;
  frame.shift_norm = survey.shift_norm;
  std::memcpy(shift_, survey.shift.data(), size_t(padded(dim)) * sizeof(double));

  const int64_t row_floats = lanes * padded(dim);
  const Buffer<float> rows(threads * row_floats);
  parallel_for(num_bands, threads, [&](int64_t band, int worker) {
    pack_band(codebook, band, rows.data() + worker * row_floats);
  });
  for (int64_t band = num_bands - 2; band >= 0; --band)
    beyond[band] = beyond[band] < beyond[band + 1] ? beyond[band] : beyond[band + 1];
  if (!keep) return;
  std::memcpy(kept_, codebook, size_t(num_codes * dim) * sizeof(float));
  *header_ = Header{format,        num_codes,          dim,         int64_t(metric),
                    num_positions, int64_t(ascending), frame.scale, frame.shift_norm};
}

bool PackedCodebook::open(const float* codebook, int threads) {
  const Header& header = *header_;
  if (header.format != format || header.num_codes != num_codes || header.dim != dim ||
      header.metric != int64_t(metric) || header.num_positions < 0 ||
      header.num_positions > most_positions())
    return false;
  for (int64_t p = 0; p < header.num_positions; ++p)
    if (ids[p] < -1 || ids[p] >= num_codes) return false;
  constexpr int64_t chunk = 16384;
  const int64_t total = num_codes * dim;
  bool same = true;
  parallel_for(divided_up(total, chunk), total < 4 * chunk ? 1 : threads, [&](int64_t c, int) {
    const int64_t first = c * chunk, count = total - first < chunk ? total - first : chunk;
    if (std::memcmp(kept_ + first, codebook + first, size_t(count) * sizeof(float)) != 0)
      __atomic_store_n(&same, false, __ATOMIC_RELAXED);
  });
  if (!same) return false;
  set_positions(header.num_positions, header.ascending != 0);
  frame.scale = header.scale;
  frame.shift_norm = header.shift_norm;
  return true;
}

// rows: (lanes, padded(D)) scratch.
void PackedCodebook::pack_band(const float* codebook, int64_t band, float* rows) const {
  const int64_t width = padded(dim);
  const int64_t codes = panels_in_band(band) * panel_vectors;
  const int64_t first_group = band * lanes;
  float* band_start = panels + band * band_panels * panel_floats;
  alignas(64) double largest[lanes] = {};
  double smallest = __builtin_inf();

  for (int64_t t = 0; t < codes; ++t) {
    float* panel = band_start + t / panel_vectors * panel_floats + t % panel_vectors * lanes;
    for (int64_t j = 0; j < lanes; ++j) {
      const int64_t position = first_position(first_group + j) + t;
      float* row = rows + j * width;
      if (position >= num_positions || ids[position] < 0) {
        panel[j] = -__builtin_inff();
        for (int64_t i = 0; i < dim; ++i) row[i] = 0.0f;
        continue;
      }
      float half_square;
      const double norm = frame_code(frame, codebook + ids[position] * dim, row, &half_square);
      panel[j] = metric == Metric::l2 ? -half_square : 0.0f;
      largest[j] = norm > largest[j] ? norm : largest[j];
      smallest = norm < smallest ? norm : smallest;
    }
    for (int64_t i = 0; i < dim; ++i) {
      panel += panel_codes;
#pragma GCC unroll 16
      for (int j = 0; j < lanes; ++j) panel[j] = rows[j * width + i];
    }
  }

  beyond[band] = metric == Metric::l2 ? float(smallest / bound_slack) : 0.0f;

  float* absent = rows;
  for (int64_t i = 0; i < dim; ++i) absent[i] = __builtin_nanf("");
  for (int64_t j = 0; j < lanes; ++j) {
    const int64_t group = first_group + j;
    reach[group] = group_reach(largest[j]);
    curve[group] = group_curve(largest[j], dim, metric);
    for (int64_t t = 0; t < exact_lanes; t += 8) {
      const float* code[8];
      for (int64_t lane = 0; lane < 8; ++lane) {
        const int64_t position = first_position(group) + t + lane;
        const bool present = t + lane < codes && position < num_positions && ids[position] >= 0;
        code[lane] = present ? codebook + ids[position] * dim : absent;
      }
      float* out = exact + (group * exact_lanes + t) * dim;
      for (int64_t i = 0; i < dim; ++i)
#pragma GCC unroll 8
        for (int lane = 0; lane < 8; ++lane) out[i * 8 + lane] = code[lane][i];
    }
  }
}

}  // namespace vqk::VQK_LEVEL
