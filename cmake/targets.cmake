# msa_cuda_sources(TARGET FOLDER): the folder's .cu files become part of the target where CUDA is there.
function(msa_cuda_sources target folder)
  if(MSA_HAS_CUDA)
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cu)
    target_sources(${target} PRIVATE ${sources})
    target_link_libraries(${target} PUBLIC CUDA::cudart_static)
  endif()
endfunction()

# msa_library(NAME DEPENDS…): src/NAME as a static library of all its .cc files, with the include root src/.
# The dependencies given are the only folders it may include from (tests/include_directions checks the sources too).
add_library(msa_options INTERFACE)
target_include_directories(msa_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
set(MSA_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 warns about std::string's own operator+ (its bug 105651).
  list(APPEND MSA_WARNINGS -Wno-restrict)
endif()
target_compile_options(msa_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${MSA_WARNINGS}>")
target_compile_definitions(msa_options INTERFACE MSA_HAS_CUDA=$<BOOL:${MSA_HAS_CUDA}>)
if(MSA_SANITIZE)
  set(sanitizer_options -fsanitize=${MSA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_compile_options(msa_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${sanitizer_options}>")
  target_link_options(msa_options INTERFACE -fsanitize=${MSA_SANITIZE})
endif()

function(msa_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cc)
  add_library(msa_${name} STATIC ${sources})
  target_link_libraries(msa_${name} PUBLIC msa_options ${ARG_DEPENDS})
  msa_cuda_sources(msa_${name} ${CMAKE_CURRENT_SOURCE_DIR}/${name})
endfunction()

# msa_test(NAME LIBS…): tests/NAME_test.cc as one GoogleTest program, one ctest entry.
function(msa_test name)
  add_executable(${name}_test ${name}_test.cc)
  target_link_libraries(${name}_test PRIVATE ${ARGN} GTest::gtest_main GTest::gmock)
  target_compile_definitions(${name}_test PRIVATE MSA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name}_test)
endfunction()
