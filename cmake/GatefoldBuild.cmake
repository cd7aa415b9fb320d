# Compiler settings shared by every target, and the two functions that declare targets.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  # What one clone compiled another finds, whatever folder each is in; a CUDA compiler comes with each.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
               CCACHE_COMPILERCHECK=content ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
endif()

set(GATEFOLD_SANITIZER "" CACHE STRING "address, thread or undefined; empty for none")
option(GATEFOLD_FUZZ "Build the libFuzzer targets under tests/fuzz (clang only)" OFF)

# Warnings are an interface target, so that generated code can stay outside of them.
add_library(gatefold_warnings INTERFACE)
target_compile_options(gatefold_warnings INTERFACE -Wall -Wextra -Wno-sign-compare
                                                   -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(gatefold_warnings INTERFACE -Wthread-safety)
else()
  # GCC 12 sees overlapping copies where a literal is assigned to a string (GCC bug 105651).
  target_compile_options(gatefold_warnings INTERFACE -Wno-restrict)
endif()
if(GATEFOLD_SANITIZER)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${GATEFOLD_SANITIZER}>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${GATEFOLD_SANITIZER})
endif()
# One row's bits must not depend on whether the compiler saw a chance to fuse a multiply and an
# add; kernels ask for fused operations by name.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

# gatefold_library(NAME SRCS a.cc ... DEPS x ... [PRIVATE_DEPS y ...])
# Declares library gatefold_NAME with alias gatefold::NAME.
function(gatefold_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(gatefold_${name} STATIC ${ARG_SRCS})
    target_include_directories(gatefold_${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(gatefold_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS} gatefold_warnings)
  else()
    add_library(gatefold_${name} INTERFACE)
    target_include_directories(gatefold_${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(gatefold_${name} INTERFACE ${ARG_DEPS})
  endif()
  add_library(gatefold::${name} ALIAS gatefold_${name})
endfunction()

# gatefold_test(NAME SRCS a_test.cc ... DEPS x ...)
# One test binary, run as one ctest entry with the source root as working directory, so that
# fixtures are found at tests/golden/... .
function(gatefold_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 900)  # the longest takes a tenth of it on two cores with nothing else to do
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main gatefold_warnings)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
