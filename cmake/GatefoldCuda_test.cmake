# Which nvcc is taken, with programs that only pretend to be one:
#   cmake -DPROJECT_SOURCE_DIR=. -DFOLDER=build/nvcc -P cmake/GatefoldCuda_test.cmake     FOLDER is made anew
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/GatefoldCuda.cmake)

file(REMOVE_RECURSE ${FOLDER})
foreach(age old new)
  set(nvcc ${FOLDER}/${age}/bin/nvcc)
  set(code 0)
  if(age STREQUAL old)
    set(code 1)
  endif()
  file(WRITE ${nvcc} "#!/bin/sh\nexit ${code}\n")
  file(CHMOD ${nvcc} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endforeach()
set(old ${FOLDER}/old)
set(new ${FOLDER}/new)

function(expect actual expected what)
  if(NOT "${actual}" STREQUAL "${expected}")
    message(SEND_ERROR "${what}: \"${actual}\", not \"${expected}\"")
  endif()
endfunction()

gatefold_nvcc_serves(${new}/bin/nvcc serves)
expect(${serves} ON "one that takes C++20")
gatefold_nvcc_serves(${old}/bin/nvcc serves)
expect(${serves} OFF "one that does not")
gatefold_nvcc_serves(${FOLDER}/gone/nvcc serves)
expect(${serves} OFF "one that is not there")

# In PATH; behind an old one there; where an earlier run found none.
set(ENV{CUDACXX})
set(ENV{CUDA_PATH} ${old})
set(ENV{PATH} ${new}/bin)
gatefold_look_for_nvcc()
expect("$ENV{CUDACXX}" ${new}/bin/nvcc "PATH")

set(ENV{CUDACXX})
set(ENV{CUDA_PATH} ${new})
set(ENV{PATH} ${old}/bin)
set(CMAKE_CUDA_COMPILER NOTFOUND CACHE FILEPATH "")
gatefold_look_for_nvcc()
expect("$ENV{CUDACXX}" ${new}/bin/nvcc "CUDA_PATH")
expect("${CMAKE_CUDA_COMPILER}" "" "what was not found before")

# Whoever names one has it.
set(ENV{CUDACXX} ${old}/bin/nvcc)
gatefold_look_for_nvcc()
expect("$ENV{CUDACXX}" ${old}/bin/nvcc "CUDACXX")
set(ENV{CUDACXX})
set(CMAKE_CUDA_COMPILER ${old}/bin/nvcc)
gatefold_look_for_nvcc()
expect("$ENV{CUDACXX}" "" "CMAKE_CUDA_COMPILER")
