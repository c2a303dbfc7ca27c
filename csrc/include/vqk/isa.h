#pragma once

namespace vqk {

constexpr int max_isa_levels = 3;

// Names of the instruction-set levels that this build holds and this CPU runs, slowest first.
// Returns how many of the (max_isa_levels,) names were written.
int isa_levels(const char** names);

// The level in use: the one VQK_ISA names, otherwise the fastest. Chosen on first use.
// Throws std::invalid_argument for an unknown name, std::runtime_error for one the CPU lacks.
const char* isa();

// Replaces the level in use, for tests. Throws as isa() does. No op may be running.
void force_isa(const char* name);

// _OPENMP of the compiler, 0 when the build is single-threaded.
int openmp_version();

}  // namespace vqk
