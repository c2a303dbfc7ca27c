#include "partition.h"

#include <cstring>

#include "frame_code.h"
#include "memory.h"
#include "parallel.h"
#include "prepare_rows.h"

namespace vqk::VQK_LEVEL {
namespace {

// Marks memory as filled by this version.
constexpr uint64_t format = 0x76716b7063656c00u + 1;

constexpr int64_t fewest_codes = 1024, fewest_numbers = 8192, most_channels = 256;

constexpr int iterations = 4;
constexpr int64_t codes_per_cell = 64;
constexpr int64_t tiles_per_turn = 8;

// The mean of every cell's codes; a cell without codes takes over a code of the fullest one, and
// with it the half of what that one holds.
void move_centres(const FramedCodes& codes, const int32_t* cells, int64_t num_cells,
                  float* points) {
  const int64_t dim = codes.frame.dim;
  const Buffer<double> sums(num_cells * dim);
  const Buffer<int64_t> counts(num_cells);
  const Buffer<int32_t> members(num_cells);
  for (int64_t i = 0; i < num_cells * dim; ++i) sums[i] = 0.0;
  for (int64_t g = 0; g < num_cells; ++g) counts[g] = 0;
  for (int64_t k = 0; k < codes.count; ++k) {
    const int64_t g = cells[k];
    const float* code = codes.codebook + int64_t(codes.ids[k]) * dim;
    for (int64_t i = 0; i < dim; ++i) sums[g * dim + i] += double(code[i]);
    ++counts[g];
    members[g] = codes.ids[k];
  }
  for (int64_t g = 0; g < num_cells; ++g)
    for (int64_t i = 0; i < dim && counts[g] > 0; ++i)
      points[g * dim + i] = float(sums[g * dim + i] / double(counts[g]));
  for (int64_t g = 0; g < num_cells; ++g) {
    if (counts[g] > 0) continue;
    int64_t fullest = 0;
    for (int64_t other = 1; other < num_cells; ++other)
      if (counts[other] > counts[fullest]) fullest = other;
    const float* code = codes.codebook + int64_t(members[fullest]) * dim;
    for (int64_t i = 0; i < dim; ++i) points[g * dim + i] = code[i];
    counts[g] = counts[fullest] / 2;
    counts[fullest] -= counts[g];
    members[g] = members[fullest];
  }
}

}  // namespace

// As many centres as codes in a cell or two: both are looked at, and each cell costs something.
int64_t Partition::suitable_cells(int64_t num_codes, int64_t dim) {
  if (num_codes < fewest_codes || num_codes * dim < fewest_numbers || dim > most_channels) return 0;
  return Centres::padded_count(int64_t(1.25 * __builtin_sqrt(double(num_codes))));
}

Partition::Partition(int64_t code_dim, int64_t cells, void* memory)
    : bytes(0), dim(code_dim), most_cells(cells), count(0) {
  Parts parts{static_cast<float*>(memory), 0};
  header_ = reinterpret_cast<Header*>(parts.take(sizeof(Header) / sizeof(float)));
  notes = reinterpret_cast<Notes*>(parts.take(sizeof(Notes) / sizeof(float)));
  points = parts.take(most_cells * dim);
  bytes = parts.floats * int64_t(sizeof(float));
}

bool Partition::fits(const void* memory, int64_t bytes, int64_t dim, int64_t* most_cells) {
  if (bytes < int64_t(sizeof(Header))) return false;
  const Header& header = *static_cast<const Header*>(memory);
  if (header.format != format || header.dim != dim || header.count < 0 ||
      header.count > header.most_cells || header.most_cells > INT32_MAX ||
      Partition(dim, header.most_cells, nullptr).bytes > bytes)
    return false;
  *most_cells = header.most_cells;
  return true;
}

void Partition::open() { count = header_->count; }

void frame_centres(const Frame& frame, const float* points, const Centres& centres) {
  const int64_t width = padded(frame.dim);
  float half_square;
  for (int64_t g = 0; g < centres.count; ++g) {
    float* centre = centres.rows + g * width;
    const double norm = frame_code(frame, points + g * frame.dim, centre, &half_square);
    if (!(norm < most_norm_of_centre)) std::memset(centre, 0, size_t(width) * sizeof(float));
  }
  centres.lay_out();
}

void assign_cells(const FramedCodes& codes, const Centres& centres, int threads, int32_t* cells) {
  const int64_t dim = codes.frame.dim, width = padded(dim);
  const int64_t turn = tiles_per_turn * tile_rows;
  const int64_t floats = tile_rows * (2 * width + centres.score_stride());
  const Buffer<float> memory(threads * floats);
  parallel_for((codes.count + turn - 1) / turn, threads, [&](int64_t t, int worker) {
    float* scores = memory.data() + worker * floats;
    float* rows = scores + tile_rows * centres.score_stride();
    float* z = rows + tile_rows * width;
    const int64_t end = codes.count < (t + 1) * turn ? codes.count : (t + 1) * turn;
    for (int64_t first = t * turn; first < end; first += tile_rows) {
      for (int64_t r = 0; r < tile_rows; ++r) {
        const int64_t k = first + r < end ? first + r : end - 1;
        float half_square;
        frame_code(codes.frame, codes.codebook + int64_t(codes.ids[k]) * dim, rows + r * width,
                   &half_square);
      }
      interleave_rows(rows, dim, tile_rows, z);
      centres.score(z, scores);
      for (int64_t r = 0; r < tile_rows && first + r < end; ++r) {
        int64_t cell;
        best_score(scores + r * centres.score_stride(), centres.stride, &cell);
        cells[first + r] = int32_t(cell);
      }
    }
  });
}

void Partition::find(const FramedCodes& codes, int threads) {
  count = most_cells < codes.count ? most_cells : codes.count;
  *header_ = Header{format, dim, most_cells, count};
  *notes = Notes{0.0f, 0.0f, 0, 0};
  const int64_t most = codes_per_cell * count;
  const int64_t sampled = codes.count < most ? codes.count : most;
  const Buffer<int32_t> ids(sampled), cells(sampled);
  for (int64_t i = 0; i < sampled; ++i) ids[i] = codes.ids[i * codes.count / sampled];
  const FramedCodes sample{codes.codebook, ids.data(), sampled, codes.frame};
  for (int64_t g = 0; g < count; ++g)
    std::memcpy(points + g * dim, codes.codebook + int64_t(ids[g * sampled / count]) * dim,
                size_t(dim) * sizeof(float));

  const Buffer<char> memory(Centres(count, dim, nullptr).bytes);
  const Centres centres(count, dim, memory.data());
  for (int i = 0; i < iterations && count > 0; ++i) {
    frame_centres(codes.frame, points, centres);
    assign_cells(sample, centres, threads, cells.data());
    move_centres(sample, cells.data(), count, points);
  }
}

}  // namespace vqk::VQK_LEVEL
