// Runs a grid: see cuda_runtime.h beside this file.

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Bounds of the section that __shared__ variables are in, from the linker.
extern "C" char __start_shared_memory[], __stop_shared_memory[];

namespace {

constexpr size_t stack_bytes = 64 << 10;
enum class State { ready, at_block_barrier, at_warp_barrier, done };

// ucontext makes a fiber; jumps switch between them, without its system call for every switch.
struct Fiber {
  ucontext_t context;
  jmp_buf jump;
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  State state = State::done;
  bool started = false;
};

std::vector<Fiber> fibers;
std::vector<uint64_t> slots;
ucontext_t scheduler_context;
jmp_buf scheduler;
size_t running;
const std::function<void()>* body;
std::mt19937 random_order(1);

void wait_in(State state) {
  fibers[running].state = state;
  if (_setjmp(fibers[running].jump) == 0) _longjmp(scheduler, 1);
}

void enter() {
  for (;;) {
    (*body)();
    wait_in(State::done);
  }
}

void resume(size_t t) {
  Fiber& fiber = fibers[t];
  running = t;
  threadIdx = dim3(unsigned(t), 0, 0);
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.jump, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
  swapcontext(&scheduler_context, &fiber.context);
}

// Frees the threads [begin, end) when those that have not finished are all at the barrier.
bool open_barrier(size_t begin, size_t end, State barrier) {
  bool waiting = false;
  for (size_t t = begin; t < end; ++t) {
    if (fibers[t].state != barrier && fibers[t].state != State::done) return false;
    waiting = waiting || fibers[t].state == barrier;
  }
  for (size_t t = begin; t < end; ++t)
    if (fibers[t].state == barrier) fibers[t].state = State::ready;
  return waiting;
}

bool open_barriers() {
  bool opened = false;
  for (size_t t = 0; t < fibers.size(); t += 32)
    opened |= open_barrier(t, std::min(t + 32, fibers.size()), State::at_warp_barrier);
  return opened || open_barrier(0, fibers.size(), State::at_block_barrier);
}

void run_block(std::vector<size_t>& order) {
  std::fill(__start_shared_memory, __stop_shared_memory, char(0xff));
  for (Fiber& fiber : fibers) fiber.state = State::ready;
  do {
    std::shuffle(order.begin(), order.end(), random_order);
    for (const size_t t : order)
      if (fibers[t].state == State::ready) resume(t);
  } while (open_barriers());
  for (const Fiber& fiber : fibers)
    if (fiber.state != State::done) std::abort();  // a barrier that not all threads reach
}

}  // namespace

void wait_for_block() { wait_in(State::at_block_barrier); }
void wait_for_warp() { wait_in(State::at_warp_barrier); }
uint64_t* warp_slots() { return slots.data() + running / 32 * 32; }

void run_grid(dim3 grid, dim3 block, const std::function<void()>& thread) {
  body = &thread;
  gridDim = grid;
  blockDim = block;
  if (fibers.size() != block.x) fibers = std::vector<Fiber>(block.x);
  slots.resize(block.x);
  std::vector<size_t> order(block.x), blocks(size_t(grid.x) * grid.y);
  for (size_t t = 0; t < order.size(); ++t) order[t] = t;
  for (size_t b = 0; b < blocks.size(); ++b) blocks[b] = b;
  std::shuffle(blocks.begin(), blocks.end(), random_order);
  for (const size_t b : blocks) {
    blockIdx = dim3(unsigned(b % grid.x), unsigned(b / grid.x), 0);
    run_block(order);
  }
}
