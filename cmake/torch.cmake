# libtorch for the trainer: Debian's libtorch-dev, or the PyTorch installation in MSA_TORCH_DIR (the folder that holds
# its include/ and lib/; python3 -c "import torch; print(torch.__path__[0])" prints it). Defines the target msa_torch
# when it is there. PyTorch's own TorchConfig.cmake asks for the CUDA toolkit it was built with; its headers do not.
set(MSA_TORCH_DIR "" CACHE PATH "PyTorch installation to build the trainer against; empty: the system's libtorch")
if(MSA_TORCH_DIR)
  set(torch_search PATHS ${MSA_TORCH_DIR} NO_DEFAULT_PATH)
endif()
unset(TORCH_INCLUDE_DIR CACHE)
find_path(TORCH_INCLUDE_DIR torch/script.h ${torch_search} PATH_SUFFIXES include)
find_library(TORCH_CPU_LIBRARY torch_cpu ${torch_search} PATH_SUFFIXES lib)
find_library(C10_LIBRARY c10 ${torch_search} PATH_SUFFIXES lib)
find_library(TORCH_CUDA_LIBRARY torch_cuda ${torch_search} PATH_SUFFIXES lib)
find_library(C10_CUDA_LIBRARY c10_cuda ${torch_search} PATH_SUFFIXES lib)
if(TORCH_INCLUDE_DIR AND TORCH_CPU_LIBRARY AND C10_LIBRARY)
  if(MSA_TORCH_DIR)
    # Its include folder also holds a fmt of its own, which must not stand before the one that spdlog was built with.
    file(GLOB children RELATIVE ${TORCH_INCLUDE_DIR} ${TORCH_INCLUDE_DIR}/*)
    list(REMOVE_ITEM children fmt)
    set(torch_links ${CMAKE_BINARY_DIR}/torch_include)
    file(MAKE_DIRECTORY ${torch_links})
    foreach(child ${children})
      file(CREATE_LINK ${TORCH_INCLUDE_DIR}/${child} ${torch_links}/${child} SYMBOLIC)
    endforeach()
    set(TORCH_INCLUDE_DIR ${torch_links})
  endif()
  add_library(msa_torch INTERFACE)
  target_include_directories(msa_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIR}
                                                        ${TORCH_INCLUDE_DIR}/torch/csrc/api/include)
  target_link_libraries(msa_torch INTERFACE ${TORCH_CPU_LIBRARY} ${C10_LIBRARY})
  if(TORCH_CUDA_LIBRARY AND C10_CUDA_LIBRARY)
    # Nothing of ours names a symbol of these; loading them is what registers the CUDA kernels.
    target_link_libraries(msa_torch INTERFACE -Wl,--no-as-needed ${TORCH_CUDA_LIBRARY} ${C10_CUDA_LIBRARY}
                                              -Wl,--as-needed)
  endif()
  message(STATUS "trainer: yes, libtorch at ${TORCH_CPU_LIBRARY}")
else()
  message(STATUS "trainer: no, libtorch not found (libtorch-dev, or -DMSA_TORCH_DIR=…)")
endif()
