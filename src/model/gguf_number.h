// How GGUF encodes numbers; shared by what reads the file and what reads its arrays.
#pragma once

#include <cstdint>

#include "model/byte_reader.h"
#include "model/gguf.h"

namespace baton {

// Encoded bytes; 0 for strings and arrays, whose lengths are in the file.
int64_t GgufWidth(GgufType type);

// A number or bool of `type`; when the bytes end first, the reader says so.
GgufValue ReadGgufNumber(ByteReader& reader, GgufType type);

}  // namespace baton
