#include "bench/http_response_parser.h"

#include <algorithm>
#include <charconv>

namespace baton {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// A whole unsigned number, nothing else. False for anything else and for more than 64 bits.
bool ParseNumber(std::string_view text, int base, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// A piece of foreign text for a message: short, printable.
std::string Shown(std::string_view text) {
  std::string out(text.substr(0, 60));
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '?';
  }
  return out;
}

}  // namespace

absl::StatusOr<size_t> HttpResponseParser::Feed(std::string_view bytes, std::string& body) {
  const size_t given = bytes.size();
  if (given > 0) started_ = true;
  while (!bytes.empty() && !done()) {
    if (state_ == State::kLength || state_ == State::kUntilEnd || state_ == State::kChunkData) {
      BATON_RETURN_IF_ERROR(TakeBody(bytes, body));
      continue;
    }
    BATON_ASSIGN_OR_RETURN(const bool whole, TakeLine(bytes));
    if (whole) BATON_RETURN_IF_ERROR(OnLine());
  }
  return given - bytes.size();
}

absl::StatusOr<bool> HttpResponseParser::TakeLine(std::string_view& bytes) {
  if (line_taken_) {
    line_.clear();
    line_taken_ = false;
  }
  const size_t end = bytes.find('\n');
  const size_t count = std::min(end == std::string_view::npos ? bytes.size() : end + 1, bytes.size());
  line_bytes_ += count;
  if (line_bytes_ > limits_.head_bytes) {
    return DataLoss("HTTP response: expected at most ", limits_.head_bytes, " bytes of header lines");
  }
  line_.append(bytes.substr(0, count));
  bytes.remove_prefix(count);
  if (end == std::string_view::npos) return false;
  line_.pop_back();
  if (!line_.empty() && line_.back() == '\r') line_.pop_back();
  line_taken_ = true;
  return true;
}

absl::Status HttpResponseParser::OnLine() {
  switch (state_) {
    case State::kStatusLine:
      return OnStatusLine();
    case State::kHeaders:
      return line_.empty() ? OnHeadEnd() : OnHeader();
    case State::kChunkSize:
      return OnChunkSize();
    case State::kChunkEnd:
      if (!line_.empty())
        return DataLoss("HTTP response: expected a line end after a chunk, found '", Shown(line_), "'");
      line_bytes_ = 0;
      state_ = State::kChunkSize;
      return absl::OkStatus();
    case State::kTrailers:
      if (line_.empty()) state_ = State::kDone;
      return absl::OkStatus();
    default:
      return Internal("HTTP response parser: a line in a body");
  }
}

absl::Status HttpResponseParser::OnStatusLine() {
  const std::string_view line = line_;
  uint64_t status = 0;
  const bool good = (line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 ")) && line.size() >= 12 &&
                    (line.size() == 12 || line[12] == ' ') && ParseNumber(line.substr(9, 3), 10, status) &&
                    status >= 100;
  if (!good) return DataLoss("HTTP response: expected a status line of HTTP/1.1, found '", Shown(line), "'");
  http_1_0_ = line[7] == '0';
  keep_alive_ = !http_1_0_;
  status_ = static_cast<int>(status);
  state_ = State::kHeaders;
  return absl::OkStatus();
}

absl::Status HttpResponseParser::OnHeader() {
  const size_t colon = line_.find(':');
  if (colon == std::string::npos || colon == 0) {
    return DataLoss("HTTP response: expected 'name: value', found '", Shown(line_), "'");
  }
  const std::string name = Lower(std::string_view(line_).substr(0, colon));
  const std::string value = Lower(Trim(std::string_view(line_).substr(colon + 1)));
  if (name == "content-length") {
    uint64_t length = 0;
    if (!ParseNumber(value, 10, length) || (has_length_ && length != remaining_)) {
      return DataLoss("HTTP response: expected one Content-Length, a number of bytes, found '", Shown(value), "'");
    }
    has_length_ = true;
    remaining_ = length;
  } else if (name == "transfer-encoding") {
    if (value != "chunked") return DataLoss("HTTP response: the transfer coding '", Shown(value), "' is not known");
    chunked_ = true;
  } else if (name == "connection") {
    if (value.find("close") != std::string::npos) keep_alive_ = false;
    if (value.find("keep-alive") != std::string::npos) keep_alive_ = true;
  } else if (name == "content-type") {
    event_stream_ = value.starts_with("text/event-stream");
  }
  return absl::OkStatus();
}

absl::Status HttpResponseParser::OnHeadEnd() {
  if (status_ < 200) {
    const int interim = interim_ + 1;
    if (interim > limits_.interim_responses) {
      return DataLoss("HTTP response: more than ", limits_.interim_responses, " interim responses");
    }
    Reset();
    started_ = true;
    interim_ = interim;
    return absl::OkStatus();
  }
  line_bytes_ = 0;
  if (status_ == 204 || status_ == 304) {
    state_ = State::kDone;
  } else if (chunked_) {
    state_ = State::kChunkSize;
  } else if (has_length_) {
    if (remaining_ > limits_.body_bytes) {
      return DataLoss("HTTP response: a body of ", remaining_, " bytes is longer than the limit, ", limits_.body_bytes);
    }
    state_ = remaining_ == 0 ? State::kDone : State::kLength;
  } else {
    keep_alive_ = false;
    state_ = State::kUntilEnd;
  }
  return absl::OkStatus();
}

absl::Status HttpResponseParser::OnChunkSize() {
  const std::string_view line = line_;
  uint64_t size = 0;
  if (!ParseNumber(Trim(line.substr(0, line.find(';'))), 16, size)) {
    return DataLoss("HTTP response: expected a chunk's size in hexadecimal, found '", Shown(line), "'");
  }
  if (size > limits_.body_bytes) {
    return DataLoss("HTTP response: a chunk of ", size, " bytes is longer than the limit, ", limits_.body_bytes);
  }
  line_bytes_ = 0;
  remaining_ = size;
  state_ = size == 0 ? State::kTrailers : State::kChunkData;
  return absl::OkStatus();
}

absl::Status HttpResponseParser::TakeBody(std::string_view& bytes, std::string& body) {
  const size_t count =
      state_ == State::kUntilEnd ? bytes.size() : static_cast<size_t>(std::min<uint64_t>(bytes.size(), remaining_));
  body_bytes_ += count;
  if (body_bytes_ > limits_.body_bytes) {
    return DataLoss("HTTP response: the body is longer than the limit, ", limits_.body_bytes, " bytes");
  }
  body.append(bytes.substr(0, count));
  bytes.remove_prefix(count);
  if (state_ == State::kUntilEnd) return absl::OkStatus();
  remaining_ -= count;
  if (remaining_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kChunkEnd;
  return absl::OkStatus();
}

absl::Status HttpResponseParser::FinishAtEnd() {
  if (state_ == State::kUntilEnd) state_ = State::kDone;
  if (done() || !started_) return absl::OkStatus();
  return DataLoss("HTTP response: the connection ended within ", has_head() ? "the body" : "the head");
}

void HttpResponseParser::Reset() { *this = HttpResponseParser(limits_); }

}  // namespace baton
