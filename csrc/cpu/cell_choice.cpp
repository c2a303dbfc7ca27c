#include "cell_choice.h"

#include "row_tiles.h"
#include "vqk/pruning.h"

namespace vqk::VQK_LEVEL {
namespace {

// Costs in multiply-adds of one lane, from measurements; benchmarks/NOTES.md has them.
constexpr double per_row = 700.0 * lanes, per_pair = 90.0 * lanes, per_dense_product = 1.3;

// Making cells costs as much as so many rows per cell do in the search that looks at every code,
// with a partition at hand and without; and it may cost so large a share of a call.
constexpr int64_t rows_to_move = 5, rows_to_find = 12, share_of_call = 20;
// With a partition at hand a try that fails is not repeated for so many calls, and may cost more.
constexpr int32_t calls_to_wait = 31;
constexpr int64_t share_with_partition = 4;

constexpr float newest = 0.125f;

// Whether it pays to look at a share of the codes.
bool pays(int64_t num_codes, int64_t dim, int64_t cells, double share) {
  const double all = double(num_codes) * double(dim);
  const double cost = per_row + double(cells) * (double(dim) + share * per_pair) + share * all;
  return cost < per_dense_product * all;
}

float read(const float& note) {
  float value;
  __atomic_load(&note, &value, __ATOMIC_RELAXED);
  return value;
}

void note(float& to, float value) { __atomic_store(&to, &value, __ATOMIC_RELAXED); }

void note_share(Partition::Notes& notes, float share) {
  const float before = read(notes.share), least = read(notes.least_share);
  const float now = before > 0.0f ? before + newest * (share - before) : share;
  note(notes.share, now);
  if (!(least > 0.0f) || now < least) note(notes.least_share, now);
}

}  // namespace

CellChoice::CellChoice(const float* codebook, int64_t num_codes, int64_t dim,
                       const OpenedBlock& block, int64_t num_rows, const RowSample& sample,
                       int threads)
    : codebook_(codebook),
      block_(block),
      partition_(block.partition),
      codes_(block.pruned),
      search_(nullptr),
      share_(-1.0) {
  const bool always = pruning() == Pruning::always;
  if (pruning() == Pruning::never) return;
  if (!block.has_partition)
    partition_ = Partition(dim, Partition::suitable_cells(num_codes, dim), nullptr);
  if (always && partition_.most_cells == 0) partition_ = Partition(dim, panel_codes, nullptr);
  if (!always && !worth_trying(num_rows, sample)) return;
  if (!block.fresh || !block.has_partition) make_codes(num_codes, threads);
  if (codes_.num_columns == 0 || (!always && !pays_for(sample))) return;
  search_ = new PrunedSearch(codebook, codes_, num_rows, threads);
}

CellChoice::~CellChoice() { delete search_; }

bool CellChoice::worth_trying(int64_t num_rows, const RowSample& sample) const {
  if (sample.count == 0 || partition_.most_cells == 0) return false;
  if (block_.fresh) return block_.has_partition;
  if (!block_.has_partition)
    return num_rows >= share_of_call * rows_to_find * partition_.most_cells;
  if (num_rows < share_with_partition * rows_to_move * partition_.most_cells) return false;
  if (__atomic_load_n(&partition_.notes->wait, __ATOMIC_RELAXED) <= 0) return true;
  __atomic_fetch_sub(&partition_.notes->wait, 1, __ATOMIC_RELAXED);
  return false;
}

void CellChoice::make_codes(int64_t num_codes, int threads) {
  const int64_t dim = partition_.dim, cells = partition_.most_cells;
  const Metric metric = codes_.metric;
  if (!block_.has_partition) {
    partition_memory_.resize(partition_.bytes);
    partition_ = Partition(dim, cells, partition_memory_.data());
  }
  codes_memory_.resize(PrunedCodebook(num_codes, dim, metric, cells, nullptr).bytes);
  codes_ = PrunedCodebook(num_codes, dim, metric, cells, codes_memory_.data());
  codes_.pack(codebook_, partition_, !block_.has_partition, threads);
}

bool CellChoice::pays_for(const RowSample& sample) {
  const PrunedSearch trial(codebook_, codes_, sample.count, 1);
  const Buffer<float> scratch(trial.scratch_floats());
  const Buffer<int64_t> indices(sample.count);
  const int64_t block = trial.block_rows(), width = padded(codes_.dim);
  int64_t looked = 0;
  for (int64_t first = 0; first < sample.count; first += block) {
    const int64_t count = sample.count - first < block ? sample.count - first : block;
    looked += trial.assign(sample.tile.data() + first * width, count, scratch.data(),
                           indices.data() + first, nullptr, nullptr);
  }
  share_ = double(looked * lanes) / (double(codes_.num_codes) * double(sample.count));
  const bool good = pays(codes_.num_codes, codes_.dim, codes_.centres.count, share_);
  if (block_.has_partition) {
    note_share(*partition_.notes, float(share_));
    if (!good) __atomic_store_n(&partition_.notes->wait, calls_to_wait, __ATOMIC_RELAXED);
  }
  return good;
}

}  // namespace vqk::VQK_LEVEL
