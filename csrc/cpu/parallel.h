#pragma once

#include <cstdint>

namespace vqk {

// Saves the caller's floating-point control state, sets round to nearest with denormals kept, and
// restores it. Every op starts with one: torch.set_flush_denormal must not change an index.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment();
  ~DefaultFloatEnvironment();

 private:
  uint64_t saved_;
};

// Runs task(context, worker) on up to `threads` workers numbered from 0, each in the default float
// environment. With one thread no parallel region is entered: libgomp deadlocks in forked
// processes. Tasks must not throw, and must not rely on how many workers there are.
void run_workers(int threads, void (*task)(void* context, int worker), void* context);

namespace {

// body(i, worker) for 0 <= i < count, handed out one by one; worker < max(threads, 1).
template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
  struct Context {
    const Body& body;
    int64_t count;
    int64_t next;
  } context{body, count, 0};
  const int useful = count < threads ? int(count) : threads;
  run_workers(
      useful,
      [](void* pointer, int worker) {
        Context& shared = *static_cast<Context*>(pointer);
        for (;;) {
          const int64_t i = __atomic_fetch_add(&shared.next, 1, __ATOMIC_RELAXED);
          if (i >= shared.count) return;
          shared.body(i, worker);
        }
      },
      &context);
}

}  // namespace

}  // namespace vqk
