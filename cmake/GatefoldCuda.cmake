# Which CUDA compiler is taken where nobody named one.

# gatefold_nvcc_serves(NVCC RESULT): whether it runs and knows C++20, as CUDA's do from 12.0 on; says so if not.
function(gatefold_nvcc_serves nvcc result)
  execute_process(COMMAND ${nvcc} -std=c++20 --dryrun -x cu -c gatefold/cuda/rows.cu
                  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                  RESULT_VARIABLE code OUTPUT_QUIET ERROR_VARIABLE said)
  if(code STREQUAL 0)
    set(${result} ON PARENT_SCOPE)
    return()
  endif()
  string(REGEX MATCH "[^\n]+" said "${said}\n${code}")
  message(STATUS "${nvcc} is passed over, CUDA 12.0 or later is needed: ${said}")
  set(${result} OFF PARENT_SCOPE)
endfunction()

# The first that serves goes into CUDACXX: in PATH, in CUDA_PATH, and where NVIDIA's packages put theirs,
# which no PATH leads to. What an earlier run did not find is looked for again.
function(gatefold_look_for_nvcc)
  if(CMAKE_CUDA_COMPILER)
    return()
  endif()
  unset(CMAKE_CUDA_COMPILER CACHE)
  if(NOT "$ENV{CUDACXX}" STREQUAL "")
    return()
  endif()
  find_program(in_path nvcc NO_CACHE)
  set(candidates ${in_path})
  foreach(toolkit $ENV{CUDA_PATH} /usr/local/cuda)
    list(APPEND candidates ${toolkit}/bin/nvcc)
  endforeach()
  foreach(nvcc ${candidates})
    if(EXISTS ${nvcc})
      gatefold_nvcc_serves(${nvcc} serves)
      if(serves)
        set(ENV{CUDACXX} ${nvcc})
        return()
      endif()
    endif()
  endforeach()
endfunction()
