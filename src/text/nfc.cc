#include "text/nfc.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "text/unicode.h"
#include "text/unicode_tables.h"

namespace baton {
namespace {

// Hangul syllables are computed (The Unicode Standard, section 3.12): [lead][vowel][trail].
constexpr char32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161, kTrailBase = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTrails = 28, kSyllables = kLeads * kVowels * kTrails;

struct Mark {
  char32_t code;
  uint8_t combining_class;
  uint32_t order = 0;  // among its neighbours, so that sorting is stable
};

uint8_t CombiningClass(char32_t code) {
  const auto* range = std::lower_bound(std::begin(kCombiningRanges), std::end(kCombiningRanges), code,
                                       [](const CombiningRange& entry, char32_t value) { return entry.last < value; });
  return range != std::end(kCombiningRanges) && range->first <= code ? range->combining_class : 0;
}

const Decomposition* FindDecomposition(char32_t code) {
  const auto* entry = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), code,
                                       [](const Decomposition& left, char32_t right) { return left.code < right; });
  return entry != std::end(kDecompositions) && entry->code == code ? entry : nullptr;
}

// Recursion is as deep as Unicode's longest chain of decompositions: four.
void AppendDecomposed(char32_t code, std::vector<Mark>& out) {
  if (code - kSyllableBase < kSyllables) {
    const char32_t index = code - kSyllableBase;
    out.push_back({kLeadBase + index / (kVowels * kTrails), 0});
    out.push_back({kVowelBase + index / kTrails % kVowels, 0});
    if (index % kTrails != 0) out.push_back({kTrailBase + index % kTrails, 0});
    return;
  }
  const Decomposition* entry = FindDecomposition(code);
  if (entry == nullptr) {
    out.push_back({code, CombiningClass(code)});
    return;
  }
  AppendDecomposed(entry->first, out);
  if (entry->second != 0) AppendDecomposed(entry->second, out);
}

void OrderMarks(std::vector<Mark>& marks) {
  const auto before = [](const Mark& a, const Mark& b) {
    return std::pair(a.combining_class, a.order) < std::pair(b.combining_class, b.order);
  };
  for (auto from = marks.begin(); from != marks.end();) {
    auto to = from;
    for (uint32_t order = 0; to != marks.end() && to->combining_class != 0; ++to) to->order = order++;
    std::sort(from, to, before);
    from = to == from ? from + 1 : to;
  }
}

using Composition = std::pair<std::pair<char32_t, char32_t>, char32_t>;

std::vector<Composition> BuildCompositions() {
  std::vector<Composition> out;
  for (const Decomposition& entry : kDecompositions) {
    if (entry.composes) out.push_back({{entry.first, entry.second}, entry.code});
  }
  std::sort(out.begin(), out.end());
  return out;
}

// 0 when the two do not compose.
char32_t Compose(char32_t first, char32_t second) {
  static const std::vector<Composition> compositions = BuildCompositions();
  if (first - kLeadBase < kLeads && second - kVowelBase < kVowels) {
    return kSyllableBase + ((first - kLeadBase) * kVowels + second - kVowelBase) * kTrails;
  }
  const char32_t syllable = first - kSyllableBase;
  if (syllable < kSyllables && syllable % kTrails == 0 && second - kTrailBase - 1 < kTrails - 1) {
    return first + second - kTrailBase;
  }
  const std::pair key(first, second);
  const auto entry = std::lower_bound(compositions.begin(), compositions.end(), key,
                                      [](const Composition& left, const auto& right) { return left.first < right; });
  return entry != compositions.end() && entry->first == key ? entry->second : 0;
}

// Composes in place: a mark joins the last starter unless something between the two blocks it.
void ComposeMarks(std::vector<Mark>& marks) {
  constexpr size_t kNone = ~size_t{0};
  size_t size = 0, starter = kNone;
  for (const Mark mark : marks) {
    const bool adjacent = starter + 1 == size;
    const bool blocked = !adjacent && marks[size - 1].combining_class >= mark.combining_class;
    const char32_t composed = starter == kNone || blocked ? 0 : Compose(marks[starter].code, mark.code);
    if (composed != 0) {
      marks[starter].code = composed;
      continue;
    }
    if (mark.combining_class == 0) starter = size;
    marks[size++] = mark;
  }
  marks.resize(size);
}

}  // namespace

bool IsQuicklyNfc(std::string_view text) {
  const uint8_t* properties = CodePointProperties();
  while (!text.empty()) {
    const CodePoint code = DecodeUtf8(text);
    if (properties[code.value] & kMayChange) return false;
    text.remove_prefix(code.bytes);
  }
  return true;
}

std::string NormalizeNfc(std::string_view text) {
  if (IsQuicklyNfc(text)) return std::string(text);
  std::vector<Mark> marks;
  marks.reserve(text.size());
  while (!text.empty()) {
    const CodePoint code = DecodeUtf8(text);
    AppendDecomposed(code.value, marks);
    text.remove_prefix(code.bytes);
  }
  OrderMarks(marks);
  ComposeMarks(marks);
  std::string out;
  for (const Mark& mark : marks) AppendUtf8(mark.code, out);
  return out;
}

}  // namespace baton
