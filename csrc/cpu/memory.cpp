#include "memory.h"

#include <cstdlib>
#include <new>

namespace vqk {

void* allocate(int64_t bytes) {
  constexpr int64_t alignment = 64;
  const int64_t rounded = (bytes + alignment) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, size_t(rounded));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void release(void* memory) noexcept { std::free(memory); }

}  // namespace vqk
