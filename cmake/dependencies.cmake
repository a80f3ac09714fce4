# Third-party libraries: static, so that the one binary runs on any newer Linux. packages.txt says why each is here.
set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
find_package(Threads REQUIRED)

find_program(BATON_CCACHE ccache)
if(BATON_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${BATON_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${BATON_CCACHE})
endif()
find_program(BATON_MOLD mold)
if(BATON_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra> $<$<COMPILE_LANGUAGE:CXX>:-Werror>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety>)
endif()
# Results must not depend on how a compiler contracts a*b+c: kernels write fused multiply-adds out where they want them.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

if(BATON_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(BATON_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
else()
  add_link_options(-static-libstdc++ -static-libgcc)
endif()

if(BATON_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

set(Protobuf_USE_STATIC_LIBS ON)
find_package(Protobuf MODULE REQUIRED)

# Abseil's CMake package names shared targets only; the archives are all here and need rescanning for their cycles.
file(GLOB BATON_ABSL_ARCHIVES /usr/lib/*/libabsl_*.a)
list(FILTER BATON_ABSL_ARCHIVES EXCLUDE REGEX "test|flags|benchmark")
add_library(baton_absl INTERFACE)
target_link_libraries(baton_absl INTERFACE "$<LINK_GROUP:RESCAN,${BATON_ABSL_ARCHIVES}>" Threads::Threads)

set(Boost_USE_STATIC_LIBS ON)
set(Boost_NO_WARN_NEW_VERSIONS ON)
find_package(Boost 1.81 REQUIRED COMPONENTS json url)
find_library(BATON_PCRE2 pcre2-8 REQUIRED)
find_library(BATON_XXHASH xxhash REQUIRED)
if(BATON_TESTS)
  find_package(GTest MODULE REQUIRED)
  find_library(BATON_GMOCK gmock REQUIRED)
endif()
