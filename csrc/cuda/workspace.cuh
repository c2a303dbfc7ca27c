#pragma once

#include <cstdint>

namespace vqk::cuda {

// Cuts one block of memory into arrays. With a null block it only measures.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class Element>
  Element* take(int64_t count) {
    const int64_t begin = bytes_;
    bytes_ += (count * int64_t(sizeof(Element)) + 15) / 16 * 16;
    return memory_ == nullptr ? nullptr : reinterpret_cast<Element*>(memory_ + begin);
  }

  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

}  // namespace vqk::cuda
