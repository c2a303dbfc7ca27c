#pragma once

// Sources compiled once per instruction-set level must not emit inline functions: the linker keeps
// one copy of each, and may keep the AVX-512 one for every CPU. What these sources share in headers
// is therefore always inlined, or has internal linkage.
#define VQK_INLINE inline __attribute__((always_inline))
