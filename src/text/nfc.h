// Unicode normalization form C (UAX 15), which Qwen's tokenizers ask for. Marks that Unicode got after 9.0 are not
// moved, because the reference, and so every model, has it that way.
//
// Threading: any thread. Errors: none; `text` must be valid UTF-8. Limits: time n log n in the longest run of
// combining marks, linear in everything else; five times the text in memory when it is not normalized already.
#pragma once

#include <string>
#include <string_view>

namespace baton {

// True when `text` surely is normalized; false says nothing.
bool IsQuicklyNfc(std::string_view text);
std::string NormalizeNfc(std::string_view text);

}  // namespace baton
