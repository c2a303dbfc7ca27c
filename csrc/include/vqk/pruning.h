#pragma once

namespace vqk {

// Whether searches leave out cells of codes. No result depends on it.
enum class Pruning { automatic, never, always };

Pruning pruning();

// Replaces the choice, for tests and measurements. No op may be running.
void force_pruning(Pruning choice);

}  // namespace vqk
