# Adds csrc/cuda to _native where nvcc works, and says in CUDA_BUILD what was built.

# cudaLaunchKernelEx is from 11.8, sm_100 and sm_120 are from 12.8.
set(LEAST_CUDA 11.8)
set(BLACKWELL_CUDA 12.8)

include(CheckLanguage)
if(NOT CMAKE_CUDA_COMPILER)
  unset(CMAKE_CUDA_COMPILER CACHE) # what an earlier configuration did not find may be there now
  find_program(NVCC nvcc PATHS /usr/local/cuda/bin NO_CACHE) # the installer leaves PATH as it is
  if(NVCC AND NOT DEFINED ENV{CUDACXX})
    set(ENV{CUDACXX} ${NVCC})
  endif()
endif()
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
  set(FOUND "CUDA ${CMAKE_CUDA_COMPILER_VERSION}")
else()
  set(FOUND "none that compiles")
endif()
if(NOT CMAKE_CUDA_COMPILER OR CMAKE_CUDA_COMPILER_VERSION VERSION_LESS LEAST_CUDA)
  if(VQK_CUDA STREQUAL "on")
    message(FATAL_ERROR "nvcc must be CUDA ${LEAST_CUDA} or newer for VQK_CUDA=on, got ${FOUND}. "
            "Install the CUDA toolkit, or set VQK_CUDA=off to build without GPU kernels.")
  endif()
  set(CUDA_BUILD "none (nvcc: ${FOUND})")
  return()
endif()

# Machine code per major architecture serves its minor ones; the PTX of the last, what comes after.
set(REAL 80 90)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL BLACKWELL_CUDA)
  list(APPEND REAL 100 120)
endif()
list(GET REAL -1 LAST)
list(TRANSFORM REAL APPEND -real OUTPUT_VARIABLE ARCHITECTURES)

find_package(CUDAToolkit REQUIRED)
add_library(vqk_cuda OBJECT csrc/cuda/code_sums.cu csrc/cuda/device.cu csrc/cuda/nearest_code.cu)
set_target_properties(vqk_cuda PROPERTIES
    CUDA_ARCHITECTURES "${ARCHITECTURES};${LAST}-virtual"
    CUDA_STANDARD 17
    CUDA_STANDARD_REQUIRED ON
    CUDA_VISIBILITY_PRESET hidden)
# Four architectures at a time; the canonical arithmetic needs no flag, it names its roundings.
target_compile_options(vqk_cuda PRIVATE --threads=4 -Xcompiler=-Wall,-Wextra)
target_sources(_native PRIVATE csrc/bindings/cuda.cpp $<TARGET_OBJECTS:vqk_cuda>)
target_compile_definitions(_native PRIVATE VQK_HAS_CUDA)
set_target_properties(_native PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(_native PRIVATE CUDA::cudart_static)
target_link_options(_native PRIVATE -Wl,--exclude-libs,ALL)

list(TRANSFORM REAL PREPEND sm_)
list(JOIN REAL "/" REAL)
set(CUDA_BUILD "${CMAKE_CUDA_COMPILER_VERSION} for ${REAL}")
