// Folders: model
// Any bytes as a safetensors file: an error or tensors, and every byte that they claim can be read.
#include <boost/json/src.hpp>  // compiled here, so that the fuzzer sees into the JSON parser
#include <vector>

#include "model/dequantize.h"
#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tensors = baton::ParseSafetensors({data, size});
  if (!tensors.ok()) return 0;
  for (const auto& [name, view] : *tensors) {
    int64_t elements = 1;
    for (const int64_t extent : view.shape) elements *= extent;
    std::vector<float> values(elements);
    baton::Dequantize(view.dtype, view.data, elements, values.data());
  }
  return 0;
}
