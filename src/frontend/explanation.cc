#include "frontend/explanation.h"

#include "base/status.h"
#include "frontend/json_text.h"

namespace baton {
namespace {

double Milliseconds(int64_t us) { return static_cast<double>(us) / 1000; }

void AppendHandoff(std::string& out, const Waterfall& waterfall) {
  if (waterfall.handoff_path.empty()) {
    out += "null";
    return;
  }
  out += Cat("{\"bytes\":", waterfall.handoff_bytes, ",\"after_prefill_ms\":", Milliseconds(waterfall.handoff_us),
             ",\"path\":");
  AppendJsonString(out, waterfall.handoff_path);
  out += '}';
}

}  // namespace

std::string ExplainJson(std::string_view request_id, std::span<const SequenceTimes> sequences, std::string_view route) {
  std::string out = "{\"request_id\":";
  AppendJsonString(out, request_id);
  out += ",\"choices\":[";
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Waterfall& waterfall = *sequences[i].waterfall;
    out += Cat(i > 0 ? "," : "", "{\"index\":", i, ",\"queue_ms\":", Milliseconds(waterfall.queue_us),
               ",\"prefill_ms\":", Milliseconds(waterfall.prefill_us), ",\"handoff\":");
    AppendHandoff(out, waterfall);
    out += Cat(",\"first_token_ms\":", sequences[i].first_token_s * 1e3, ",\"decode_ms\":", sequences[i].decode_s * 1e3,
               ",\"cached_tokens\":", waterfall.cached_tokens, ",\"prefill_worker\":", waterfall.prefill_worker,
               ",\"decode_worker\":", waterfall.decode_worker, "}");
  }
  out += "]";
  if (!route.empty()) out.append(",\"route\":").append(route);
  out += "}";
  return out;
}

}  // namespace baton
