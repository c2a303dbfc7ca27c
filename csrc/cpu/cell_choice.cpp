#include "cell_choice.h"

#include "kernels.h"
#include "row_tiles.h"
#include "vqk/pruning.h"

namespace vqk::VQK_LEVEL {
namespace {

// Costs in multiply-adds of vectors, fitted to measurements: see benchmarks/NOTES.md.
constexpr double row = 350.0;                            // in either search
constexpr double code_product = 1.13, code = 1.7;        // of the search that looks at every code
constexpr double centre_product = 1.35, product = 1.75;  // of the other one
constexpr double pair = 60.0;                            // of a row and a cell
constexpr double exact_code = 20.0, exact_product = 4.0;

double cost_of_all(double codes, double dim) {
  return row + codes / lanes * (code_product * dim + code);
}

// Looking at a share of the codes, with `exact` of them scored exactly for a row.
double cost_of_cells(double codes, double dim, double cells, double share, double exact) {
  return row + (centre_product * cells + product * share * codes) / lanes * dim +
         pair * cells * share + exact * (exact_code + exact_product * dim);
}

// Finding a partition and making its cells costs as much as so many rows do in the search that
// looks at every code, and the half with a partition at hand. It may cost a share of a call, and a
// larger one where a try that fails is not repeated.
constexpr int64_t rows_to_find = 2000, rows_to_find_cell = 6;
constexpr int64_t share_of_call = 20, share_with_partition = 4;
// What a try has shown is not asked again for so many calls, but where that costs nothing.
constexpr int32_t calls_to_wait = 31;
constexpr int64_t rows_of_long_call = 4096;

constexpr float newest = 0.125f;
constexpr float worn_growth = 1.5f;

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
                       bool by_notes, int threads)
    : codebook_(codebook),
      block_(block),
      partition_(block.partition),
      codes_(block.pruned),
      share_(-1.0f) {
  if (pruning() == Pruning::never) return;
  const bool always = pruning() == Pruning::always;
  if (!block.has_partition)
    partition_ = Partition(dim, Partition::suitable_cells(num_codes, dim), nullptr);
  if (always && partition_.most_cells == 0) partition_ = Partition(dim, panel_codes, nullptr);
  if (!always && !can_bear(num_rows)) return;
  by_notes = by_notes && block.has_partition;
  const bool known = !always && by_notes && knows_answer();
  if (known && __atomic_load_n(&partition_.notes->pays, __ATOMIC_RELAXED) == 0) return;
  if (!block.fresh || !block.has_partition) make_codes(num_codes, threads);
  if (codes_.num_columns == 0) return;
  const bool pays = known || pays_for(num_rows, sample, by_notes);
  if (!always && !pays) return;
  search_.reset(new PrunedSearch(codebook, codes_, num_rows, threads));
}

// Whether a call of so many rows may have the cells made that are not at hand.
bool CellChoice::can_bear(int64_t num_rows) const {
  const int64_t cells = partition_.most_cells;
  if (cells == 0) return false;
  if (block_.fresh) return block_.has_partition;
  const int64_t rows = rows_to_find + rows_to_find_cell * cells;
  return num_rows >=
         (block_.has_partition ? share_with_partition * rows / 2 : share_of_call * rows);
}

// Whether an earlier call has answered for this one.
bool CellChoice::knows_answer() {
  Partition::Notes& notes = *partition_.notes;
  if (__atomic_load_n(&notes.wait, __ATOMIC_RELAXED) <= 0) return false;
  __atomic_fetch_sub(&notes.wait, 1, __ATOMIC_RELAXED);
  share_ = read(notes.share);
  return true;
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

bool CellChoice::pays_for(int64_t num_rows, const RowSample& sample, bool noted) {
  const PrunedSearch trial(codebook_, codes_, sample.count, 1);
  const Buffer<float> scratch(trial.scratch_floats());
  const Buffer<int64_t> indices(sample.count);
  const int64_t block = trial.block_rows(), width = padded(codes_.dim);
  Effort all{0, 0};
  for (int64_t first = 0; first < sample.count; first += block) {
    const int64_t count = sample.count - first < block ? sample.count - first : block;
    const Effort effort = trial.assign(sample.tile.data() + first * width, count, scratch.data(),
                                       indices.data() + first, nullptr, nullptr);
    all.columns += effort.columns;
    all.exact += effort.exact;
  }
  const double rows = double(sample.count);
  share_ = float(double(all.columns * lanes) / (double(codes_.num_codes) * rows));
  const double codes = double(codes_.num_codes), dim = double(codes_.dim);
  const bool pays = cost_of_cells(codes, dim, double(codes_.centres.count), share_,
                                  double(all.exact) / rows) < cost_of_all(codes, dim);
  if (noted) {
    Partition::Notes& notes = *partition_.notes;
    const bool ask_again = pays && num_rows >= rows_of_long_call;
    note_share(notes, share_);
    __atomic_store_n(&notes.pays, int32_t(pays), __ATOMIC_RELAXED);
    __atomic_store_n(&notes.wait, ask_again ? 0 : calls_to_wait, __ATOMIC_RELAXED);
  }
  return pays;
}

bool is_worn(const Prepared& partition, int64_t dim) {
  int64_t cells;
  if (!Partition::fits(partition.data, partition.bytes, dim, &cells)) return false;
  const Partition::Notes& notes = *Partition(dim, cells, const_cast<void*>(partition.data)).notes;
  return read(notes.share) > worn_growth * read(notes.least_share);
}

}  // namespace vqk::VQK_LEVEL
