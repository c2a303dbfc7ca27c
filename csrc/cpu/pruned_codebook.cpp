#include "pruned_codebook.h"

#include <cstring>

#include "codebook_survey.h"
#include "distinct_codes.h"
#include "frame_code.h"
#include "margins.h"
#include "memory.h"
#include "parallel.h"

namespace vqk::VQK_LEVEL {
namespace {

// Marks memory as packed by this version of this level.
constexpr uint64_t format_version = 1;
constexpr uint64_t format = 0x76716b6300000000u + format_version * 256 + uint64_t(lanes);

int64_t divided_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

// Numbers the cells that hold a code anew and takes their points to the front. Returns how many
// there are.
int64_t drop_empty_cells(int64_t num_cells, int64_t dim, float* points, int32_t* cells,
                         int64_t count) {
  const Buffer<int32_t> number(num_cells);
  for (int64_t g = 0; g < num_cells; ++g) number[g] = -1;
  for (int64_t k = 0; k < count; ++k) number[cells[k]] = 0;
  int32_t kept = 0;
  for (int64_t g = 0; g < num_cells; ++g) {
    if (number[g] < 0) continue;
    std::memmove(points + kept * dim, points + g * dim, size_t(dim) * sizeof(float));
    number[g] = kept++;
  }
  for (int64_t k = 0; k < count; ++k) cells[k] = number[cells[k]];
  return kept;
}

}  // namespace

PrunedCodebook::PrunedCodebook(int64_t codebook_codes, int64_t code_dim, Metric code_metric,
                               int64_t cells, void* memory)
    : num_codes(codebook_codes),
      dim(code_dim),
      most_cells(cells),
      metric(code_metric),
      slack(0.0f),
      first_id(0),
      num_columns(0),
      centres(cells, code_dim, nullptr) {
  Parts parts{static_cast<float*>(memory), 0};
  header_ = reinterpret_cast<Header*>(parts.take(sizeof(Header) / sizeof(float)));
  shift_ = reinterpret_cast<double*>(parts.take(2 * padded(dim)));
  centres_ = parts.take(centres.bytes / int64_t(sizeof(float)));
  first_column = reinterpret_cast<int32_t*>(parts.take(most_cells + 1));
  reach = parts.take(most_cells);
  margins = parts.take(most_cells * 2 * centres.stride);
  columns = parts.take(most_columns() * column_floats());
  ids = reinterpret_cast<int32_t*>(parts.take(most_columns() * lanes));
  bytes = parts.floats * int64_t(sizeof(float));
  frame = Frame{dim, Metric::l2, 1.0, 0.0, shift_};
}

void PrunedCodebook::place_centres(const float* points, int64_t count) {
  centres = Centres(count, dim, centres_);
  frame_centres(frame, points, centres);
}

void PrunedCodebook::pack(const float* codebook, Partition& partition, bool anew, int threads) {
  const CodebookSurvey survey(codebook, num_codes, dim, true, threads);
  const Buffer<int32_t> distinct(num_codes), cells(num_codes);
  const int64_t count =
      distinct_codes(codebook, survey.hashes.data(), num_codes, dim, distinct.data(), nullptr);
  frame.scale = survey.scale;
  frame.shift_norm = survey.shift_norm;
  std::memcpy(shift_, survey.shift.data(), size_t(padded(dim)) * sizeof(double));
  const FramedCodes codes{codebook, distinct.data(), count, frame};
  first_id = count > 0 ? distinct[0] : 0;
  measure_slack(codes);
  if (anew) partition.find(codes, threads);
  num_columns = 0;
  if (count > 0 && partition.count > 0) {
    const Buffer<float> points(partition.count * dim);
    std::memcpy(points.data(), partition.points, size_t(partition.count * dim) * sizeof(float));
    place_centres(points.data(), partition.count);
    assign_cells(codes, centres, threads, cells.data());
    const int64_t kept = drop_empty_cells(partition.count, dim, points.data(), cells.data(), count);
    if (kept < partition.count) place_centres(points.data(), kept);
    order_by_cell(distinct.data(), cells.data(), count);
    const Buffer<float> row(threads * padded(dim));
    parallel_for(centres.count, threads, [&](int64_t cell, int worker) {
      pack_cell(codebook, cell, row.data() + worker * padded(dim));
    });
    fill_margins(*this, threads);
  }
  *header_ =
      Header{format,      num_codes, dim,         int64_t(metric),  most_cells, centres.count,
             num_columns, first_id,  frame.scale, frame.shift_norm, slack};
}

void PrunedCodebook::measure_slack(const FramedCodes& codes) {
  double unevenness = 0.0;
  for (int64_t k = 0; metric == Metric::cosine && k < codes.count; ++k) {
    const float* code = codes.codebook + int64_t(codes.ids[k]) * dim;
    double square = 0.0;
    for (int64_t i = 0; i < dim; ++i) square += double(code[i]) * double(code[i]);
    const double uneven = __builtin_fabs(square - 1.0);
    unevenness = uneven > unevenness ? uneven : unevenness;
  }
  slack = cell_slack(metric, unevenness, frame.scale, dim);
}

bool PrunedCodebook::open() {
  const Header& header = *header_;
  if (header.format != format || header.num_codes != num_codes || header.dim != dim ||
      header.metric != int64_t(metric) || header.most_cells != most_cells || header.num_cells < 1 ||
      header.num_cells > most_cells || header.num_columns < 1 ||
      header.num_columns > most_columns() || header.first_id < 0 || header.first_id >= num_codes ||
      first_column[0] != 0 || first_column[header.num_cells] != header.num_columns)
    return false;
  for (int64_t g = 0; g < header.num_cells; ++g)
    if (first_column[g] >= first_column[g + 1]) return false;
  for (int64_t position = 0; position < header.num_columns * lanes; ++position)
    if (ids[position] < -1 || ids[position] >= num_codes) return false;
  num_columns = header.num_columns;
  centres = Centres(header.num_cells, dim, centres_);
  frame.scale = header.scale;
  frame.shift_norm = header.shift_norm;
  slack = float(header.slack);
  first_id = int32_t(header.first_id);
  return true;
}

// Gives every cell its columns and its codes, in ascending order of index.
void PrunedCodebook::order_by_cell(const int32_t* codes, const int32_t* cells, int64_t count) {
  const Buffer<int64_t> next(centres.count);
  for (int64_t g = 0; g < centres.count; ++g) next[g] = 0;
  for (int64_t k = 0; k < count; ++k) ++next[cells[k]];
  num_columns = 0;
  for (int64_t g = 0; g < centres.count; ++g) {
    first_column[g] = int32_t(num_columns);
    num_columns += divided_up(next[g], lanes);
    next[g] = int64_t(first_column[g]) * lanes;
  }
  first_column[centres.count] = int32_t(num_columns);
  for (int64_t position = 0; position < num_columns * lanes; ++position) ids[position] = -1;
  for (int64_t k = 0; k < count; ++k) ids[next[cells[k]]++] = codes[k];
}

// row: (padded(D),) scratch.
void PrunedCodebook::pack_cell(const float* codebook, int64_t cell, float* row) const {
  const float* centre = centres.rows + cell * padded(dim);
  double largest = 0.0;
  for (int64_t c = first_column[cell]; c < first_column[cell + 1]; ++c) {
    float* column = columns + c * column_floats();
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int32_t id = ids[c * lanes + lane];
      float half_square = __builtin_inff();
      double norm = 0.0;
      if (id >= 0)
        norm = frame_code(frame, centre, codebook + int64_t(id) * dim, row, &half_square);
      else
        std::memset(row, 0, size_t(dim) * sizeof(float));
      largest = norm > largest ? norm : largest;
      column[lane] = -half_square;
      for (int64_t i = 0; i < dim; ++i) column[(1 + i) * lanes + lane] = row[i];
    }
  }
  reach[cell] = group_reach(largest);
}

}  // namespace vqk::VQK_LEVEL
