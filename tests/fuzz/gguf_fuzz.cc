// Folders: model
// Any bytes as a GGUF file: an error or a model, and every byte that a tensor of it claims can be read.
#include <vector>

#include "model/dequantize.h"
#include "model/fingerprint.h"
#include "model/gguf_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using baton::GgufFile;
  for (const GgufFile::Contents contents : {GgufFile::Contents::kWhole, GgufFile::Contents::kHeaderOnly}) {
    const auto file = GgufFile::Parse({data, size}, contents);
    if (!file.ok()) continue;
    for (const baton::GgufTensor& tensor : file->tensors()) {
      if (tensor.view.data == nullptr) continue;
      int64_t elements = 1;
      for (const int64_t extent : tensor.view.shape) elements *= extent;
      std::vector<float> values(elements);
      baton::Dequantize(tensor.view.dtype, tensor.view.data, elements, values.data());
    }
    auto parts = baton::ReadGgufModel(*file);
    if (!parts.ok() || !baton::ArrangeWeights(parts->config, parts->tensors).ok()) continue;
    if (contents == GgufFile::Contents::kWhole) baton::FingerprintModel(parts->config, parts->tensors);
  }
  return 0;
}
