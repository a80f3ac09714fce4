# The CUDA backend, when nvcc is found. The toolkit's own language support in CMake would make nvcc the linker of every
# program; objects from custom commands keep the one C++ compiler and linker. cudart is static, the rest is opened at run
# time (device/cuda_library.h), so that the binary starts on machines without CUDA.
option(BATON_CUDA "build the CUDA backend when nvcc is found" ON)
set(BATON_HAVE_CUDA OFF)
if(BATON_CUDA AND NOT BATON_FUZZ AND NOT BATON_SANITIZE)
  find_program(BATON_NVCC nvcc HINTS ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES bin)
  find_program(BATON_CUDA_HOST_COMPILER NAMES g++-12 g++-13 g++-11 g++)
  if(BATON_NVCC)
    get_filename_component(root ${BATON_NVCC} REALPATH)
    get_filename_component(root ${root}/../.. ABSOLUTE)
    find_path(BATON_CUDA_INCLUDE cublasLt.h HINTS ${root}/include ${root}/targets/x86_64-linux/include)
    find_library(BATON_CUDART cudart_static HINTS ${root}/lib64 ${root}/targets/x86_64-linux/lib)
  endif()
  if(BATON_NVCC AND BATON_CUDA_HOST_COMPILER AND BATON_CUDA_INCLUDE AND BATON_CUDART)
    set(BATON_HAVE_CUDA ON)
    message(STATUS "CUDA backend: ${BATON_NVCC}, host compiler ${BATON_CUDA_HOST_COMPILER}, sm_90a")
  else()
    message(STATUS "CUDA backend: off (nvcc, g++, cublasLt.h and libcudart_static.a are needed)")
  endif()
endif()

set(BATON_NVCC_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a --expt-relaxed-constexpr -Werror=all-warnings
    -Xcompiler=-fPIC,-Wall)

# Sets `out` to the objects of the .cu files, compiled with `definitions` too; `suffix` tells such sets apart.
function(baton_cuda_objects out suffix definitions)
  set(objects)
  foreach(file ${ARGN})
    file(RELATIVE_PATH name ${CMAKE_CURRENT_SOURCE_DIR} ${file})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}${suffix}.o)
    get_filename_component(folder ${object} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(OUTPUT ${object}
      COMMAND ${BATON_CCACHE} ${BATON_NVCC} -ccbin ${BATON_CUDA_HOST_COMPILER} ${BATON_NVCC_FLAGS} ${definitions}
              -I${CMAKE_SOURCE_DIR}/src -MD -MF ${object}.d -c ${file} -o ${object}
      DEPENDS ${file} DEPFILE ${object}.d COMMENT "nvcc ${name}${suffix}" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()
