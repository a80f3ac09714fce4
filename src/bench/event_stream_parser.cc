#include "bench/event_stream_parser.h"

namespace baton {

absl::Status EventStreamParser::Feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event) {
  while (!bytes.empty()) {
    if (after_carriage_return_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_carriage_return_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + piece.size() > event_bytes_max_) {
      return DataLoss("event stream: a line is longer than the limit, ", event_bytes_max_, " bytes");
    }
    if (end == std::string_view::npos) {
      line_.append(piece);
      break;
    }
    after_carriage_return_ = bytes[end] == '\r';
    if (line_.empty()) {
      BATON_RETURN_IF_ERROR(OnLine(piece, on_event));
    } else {
      line_.append(piece);
      BATON_RETURN_IF_ERROR(OnLine(line_, on_event));
      line_.clear();
    }
    bytes.remove_prefix(end + 1);
  }
  return absl::OkStatus();
}

absl::Status EventStreamParser::OnLine(std::string_view line, const std::function<void(std::string_view)>& on_event) {
  if (line.empty()) {
    if (has_data_) on_event(data_);
    data_.clear();
    has_data_ = false;
    return absl::OkStatus();
  }
  if (!line.starts_with("data") || (line.size() > 4 && line[4] != ':')) return absl::OkStatus();
  line.remove_prefix(line.size() > 4 ? 5 : 4);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (data_.size() + line.size() > event_bytes_max_) {
    return DataLoss("event stream: an event is longer than the limit, ", event_bytes_max_, " bytes");
  }
  if (has_data_) data_.push_back('\n');
  data_.append(line);
  has_data_ = true;
  return absl::OkStatus();
}

}  // namespace baton
