// Translates the regular expressions of tokenizer.json, which Hugging Face runs through Oniguruma (Ruby syntax), into
// PCRE2's dialect with UTF and UCP. What the two understand differently is written out or refused by name:
//
//   \s \S   White_Space (PCRE2's own \s also takes U+180E)        \w \W   with marks and connectors, as Oniguruma
//   \v \h   a vertical tab / refused (PCRE2 has classes there)    $ ^     at every line
//   {,n}    is {0,n}; a{2}+ and a{2}? are refused                 [a[b]], && and [:x:] are refused
//   \p{Han} the Script property, not Script_Extensions            captures are not kept; \1, \A, \b and the like
//   refused
//
// Threading: any thread. Errors: InvalidArgument with the place in the pattern. Limits: 64 KiB of pattern.
// Known difference: under (?i:) Oniguruma lets two letters match one ("ss" and U+00DF); PCRE2 does not.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

absl::StatusOr<std::string> TranslateRegex(std::string_view pattern);
// A pattern in the same dialect that matches `text` itself.
std::string LiteralRegex(std::string_view text);

}  // namespace baton
