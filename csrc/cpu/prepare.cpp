#include "vqk/prepare.h"

#include "codebook_survey.h"
#include "distinct_codes.h"
#include "kernels.h"
#include "memory.h"
#include "prepared_block.h"

namespace vqk::VQK_LEVEL {

int64_t suitable_cells(int64_t num_codes, int64_t dim) {
  return Partition::suitable_cells(num_codes, dim);
}

int64_t prepared_bytes(int64_t num_codes, int64_t dim, int64_t cells) {
  return PreparedBlock(num_codes, dim, Metric::l2, cells, nullptr).bytes;
}

void prepare(const Prepare& args) {
  PreparedBlock block(args.num_codes, args.dim, args.metric, args.cells, args.out);
  block.packed.pack(args.codebook, true, args.threads);
  if (args.cells > 0) block.pruned.pack(args.codebook, block.partition, true, args.threads);
}

int64_t partition_bytes(int64_t dim, int64_t cells) { return Partition(dim, cells, nullptr).bytes; }

void partition(const Prepare& args) {
  const CodebookSurvey survey(args.codebook, args.num_codes, args.dim, true, args.threads);
  const Buffer<int32_t> ids(args.num_codes);
  const int64_t count = distinct_codes(args.codebook, survey.hashes.data(), args.num_codes,
                                       args.dim, ids.data(), nullptr);
  const Frame frame{args.dim, Metric::l2, survey.scale, survey.shift_norm, survey.shift.data()};
  Partition(args.dim, args.cells, args.out)
      .find({args.codebook, ids.data(), count, frame}, args.threads);
}

}  // namespace vqk::VQK_LEVEL
