#include "prepared_block.h"

namespace vqk::VQK_LEVEL {
namespace {

void* at(void* memory, int64_t offset) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(memory) + uintptr_t(offset));
}

// The number of cells in a block whose partition begins at `offset`; 0 without one.
int64_t cells_at(const Prepared& prepared, int64_t offset, int64_t dim) {
  int64_t cells = 0;
  if (prepared.data == nullptr || prepared.bytes <= offset) return 0;
  const void* memory = at(const_cast<void*>(prepared.data), offset);
  return Partition::fits(memory, prepared.bytes - offset, dim, &cells) ? cells : 0;
}

}  // namespace

PreparedBlock::PreparedBlock(int64_t num_codes, int64_t dim, Metric metric, int64_t cells,
                             void* memory)
    : packed(num_codes, dim, metric, memory),
      partition(dim, cells, at(memory, packed.bytes_kept)),
      pruned(num_codes, dim, metric, cells, at(memory, packed.bytes_kept + partition.bytes)),
      bytes(packed.bytes_kept + (cells > 0 ? partition.bytes + pruned.bytes : 0)) {}

OpenedBlock::OpenedBlock(const Prepared& prepared, const float* codebook, int64_t num_codes,
                         int64_t dim, Metric metric, int threads)
    : fresh(false),
      has_partition(false),
      packed(num_codes, dim, metric, nullptr),
      partition(dim, 0, nullptr),
      pruned(num_codes, dim, metric, 0, nullptr) {
  void* memory = const_cast<void*>(prepared.data);
  int64_t cells = cells_at(prepared, packed.bytes_kept, dim);
  const PreparedBlock block(num_codes, dim, metric, cells, memory);
  if (memory != nullptr && prepared.bytes == block.bytes) {
    packed = block.packed;
    partition = block.partition;
    pruned = block.pruned;
    fresh = packed.open(codebook, threads) && (cells == 0 || pruned.open());
  } else {
    cells = cells_at(prepared, 0, dim);
    partition = Partition(dim, cells, memory);
  }
  has_partition = cells > 0;
  if (has_partition) partition.open();
}

}  // namespace vqk::VQK_LEVEL
