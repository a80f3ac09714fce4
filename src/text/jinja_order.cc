// SortedOrder of jinja_operators.h: a merge sort, whose comparisons may fail and need not be consistent (NaN).
#include <numeric>

#include "text/jinja_operators.h"

namespace baton::jinja {

namespace {

struct Run {
  size_t begin;
  size_t middle;
  size_t end;
};

// The run's two sorted halves of `from`, as one in `to`.
absl::Status Merge(Runtime& runtime, const std::vector<Value>& keys, bool reverse, const std::vector<size_t>& from,
                   std::vector<size_t>& to, const Run& run) {
  size_t left = run.begin;
  size_t right = run.middle;
  for (size_t place = run.begin; place < run.end; ++place) {
    bool take_right = left == run.middle;
    if (left < run.middle && right < run.end) {
      const Value& a = keys[from[left]];
      const Value& b = keys[from[right]];
      // Equal keys keep their order in both directions, as in Python.
      BATON_ASSIGN_OR_RETURN(take_right, reverse ? IsLess(runtime, a, b) : IsLess(runtime, b, a));
    }
    to[place] = from[take_right ? right++ : left++];
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<size_t>> SortedOrder(Runtime& runtime, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<size_t> merged(keys.size());
  for (size_t width = 1; width < keys.size(); width *= 2) {
    for (size_t begin = 0; begin < keys.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, keys.size());
      const size_t end = std::min(begin + 2 * width, keys.size());
      BATON_RETURN_IF_ERROR(Merge(runtime, keys, reverse, order, merged, {begin, middle, end}));
    }
    order.swap(merged);
  }
  return order;
}

}  // namespace baton::jinja
