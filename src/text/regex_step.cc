// Splitting by a regular expression through PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/pre_tokenizer.h"
#include "text/regex_dialect.h"

namespace baton {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;  // for the interpreter, where there is no JIT
constexpr size_t kJitStackBytes = 32 << 10, kJitStackBytesMax = 8 << 20;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

std::string ErrorText(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

class RegexStep : public SplitStep {
 public:
  RegexStep(std::string_view pattern, pcre2_code* code) : pattern_(pattern), code_(code) {}

  absl::Status Split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    const Scratch& scratch = ThreadScratch();
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(scratch.match.get());
    size_t plain = 0;  // where the text before the next match begins
    uint32_t options = PCRE2_NO_UTF_CHECK;
    for (size_t at = 0; at <= text.size();) {
      const int result =
          pcre2_match(code_.get(), subject, text.size(), at, options, scratch.match.get(), scratch.context.get());
      if (result == PCRE2_ERROR_NOMATCH) break;
      if (result < 0) {
        return ResourceExhausted("splitting ", text.size(), " bytes with the tokenizer's pattern \"", pattern_,
                                 "\" failed: ", ErrorText(result), "; send a shorter or less repetitive text");
      }
      const size_t begin = found[0], end = found[1];
      if (plain < begin) pieces.push_back(text.substr(plain, begin - plain));
      if (begin < end) pieces.push_back(text.substr(begin, end - begin));
      plain = end;
      // After an empty match the next one must not be the same again.
      options = PCRE2_NO_UTF_CHECK | (begin == end ? PCRE2_NOTEMPTY_ATSTART : 0);
      at = end;
    }
    if (plain < text.size()) pieces.push_back(text.substr(plain));
    return absl::OkStatus();
  }

 private:
  struct Scratch {
    std::unique_ptr<pcre2_match_data, Free> match;
    std::unique_ptr<pcre2_match_context, Free> context;
    std::unique_ptr<pcre2_jit_stack, Free> stack;
  };
  // One for each thread: no result of a match outlives the loop above.
  static const Scratch& ThreadScratch() {
    thread_local const Scratch scratch = [] {
      Scratch made;
      made.match.reset(pcre2_match_data_create(1, nullptr));
      made.context.reset(pcre2_match_context_create(nullptr));
      made.stack.reset(pcre2_jit_stack_create(kJitStackBytes, kJitStackBytesMax, nullptr));
      pcre2_set_match_limit(made.context.get(), kMatchLimit);
      pcre2_set_heap_limit(made.context.get(), kHeapLimitKib);
      if (made.stack) pcre2_jit_stack_assign(made.context.get(), nullptr, made.stack.get());
      return made;
    }();
    return scratch;
  }

  std::string pattern_;
  std::unique_ptr<pcre2_code, Free> code_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SplitStep>> CreateRegexStep(std::string_view pattern) {
  BATON_ASSIGN_OR_RETURN(const std::string translated, TranslateRegex(pattern));
  const std::unique_ptr<pcre2_compile_context, Free> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (code == nullptr) {
    return InvalidArgument("regular expression \"", pattern,
                           "\": expected one that PCRE2 understands, found: ", ErrorText(error), " (at byte ", offset,
                           " of \"", translated, "\")");
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where that fails, pcre2_match interprets
  return std::make_unique<RegexStep>(pattern, code);
}

}  // namespace baton
