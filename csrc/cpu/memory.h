#pragma once

#include <cstdint>

#include "inline.h"

namespace vqk {

// Uninitialised, aligned to 64 bytes. Throws std::bad_alloc.
void* allocate(int64_t bytes);
void release(void* memory) noexcept;

// Uninitialised array for types without constructors. std::vector would leave weak symbols.
template <class T>
class Buffer {
 public:
  VQK_INLINE Buffer() : data_(nullptr) {}
  VQK_INLINE explicit Buffer(int64_t size)
      : data_(static_cast<T*>(allocate(size * int64_t(sizeof(T))))) {}
  VQK_INLINE ~Buffer() { release(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  VQK_INLINE void resize(int64_t size) {
    release(data_);
    data_ = nullptr;
    data_ = static_cast<T*>(allocate(size * int64_t(sizeof(T))));
  }
  VQK_INLINE T* data() const { return data_; }
  VQK_INLINE T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

// One object made with `new`, or none. std::unique_ptr would leave weak symbols.
template <class T>
class Owned {
 public:
  VQK_INLINE explicit Owned(T* object = nullptr) : object_(object) {}
  VQK_INLINE ~Owned() { delete object_; }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  VQK_INLINE void reset(T* object = nullptr) {
    delete object_;
    object_ = object;
  }
  VQK_INLINE T* get() const { return object_; }
  VQK_INLINE T* operator->() const { return object_; }
  VQK_INLINE T& operator*() const { return *object_; }

 private:
  T* object_;
};

// Hands out a block of floats part by part, each aligned to 64 bytes if the block is. Without
// memory it counts what would be taken.
struct Parts {
  float* memory;
  int64_t floats;

  VQK_INLINE float* take(int64_t count) {
    float* part = memory + floats;
    floats += (count + 15) / 16 * 16;
    return part;
  }
};

}  // namespace vqk
