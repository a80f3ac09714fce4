// The byte-level alphabet of GPT-2: every byte has a printable stand-in, so that vocabularies can be written as text.
// Printable ASCII and Latin-1 stand for themselves; the other 68 bytes are U+0100, U+0101, … in order.
//
// Threading: any thread. Errors: text outside of the alphabet gives nullopt.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace baton {

// The bytes that `text` stands for: BytesOfAlphabet("Ġthe") is " the".
std::optional<std::string> BytesOfAlphabet(std::string_view text);
// The other way round.
std::string AlphabetOfBytes(std::string_view bytes);

}  // namespace baton
