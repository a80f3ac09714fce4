#pragma once

#include <string>

namespace baton {

// "baton 0.1.0 (Release, cpu: avx2, cuda: …)": version, build, instruction sets of this machine, and CUDA.
std::string VersionText();

}  // namespace baton
