#include "http/request_reader.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <utility>

#include "base/status.h"

namespace baton {
namespace {

namespace http = boost::beast::http;

std::string ToString(boost::beast::string_view view) { return {view.data(), view.size()}; }

std::string ToLower(boost::beast::string_view view) {
  std::string out = ToString(view);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

}  // namespace

struct RequestReader::Parser {
  http::request_parser<http::string_body> beast;
};

RequestReader::RequestReader(const Limits& limits) : limits_(limits) {}
RequestReader::~RequestReader() = default;

void RequestReader::Feed(std::string_view bytes) {
  if (state_ == State::kError) return;
  pending_.append(bytes);
  if (state_ != State::kDone) Parse();
}

void RequestReader::Parse() {
  if (state_ == State::kEmpty) {  // clients may send an empty line after a body
    const size_t start = pending_.find_first_not_of("\r\n");
    pending_.erase(0, start == std::string::npos ? pending_.size() : start);
  }
  if (pending_.empty()) return;
  if (state_ != State::kBody && !ParseHead()) return;
  auto& beast = parser_->beast;
  size_t used = 0;
  while (used < pending_.size() && !beast.is_done()) {
    const size_t taken = Put(std::string_view(pending_).substr(used));
    if (state_ == State::kError) return;
    if (taken == 0) break;
    used += taken;
  }
  pending_.erase(0, used);
  if (beast.is_done()) state_ = State::kDone;
}

// Waits for the whole head before it is parsed: what is refused does not depend on how the bytes arrive.
bool RequestReader::ParseHead() {
  constexpr std::string_view kEnd = "\r\n\r\n";
  state_ = State::kHeader;
  const size_t end = pending_.find(kEnd, scanned_ - std::min(scanned_, kEnd.size() - 1));
  scanned_ = pending_.size();
  if (end == std::string::npos ? pending_.size() > limits_.header_bytes : end + kEnd.size() > limits_.header_bytes) {
    Fail(431, Cat("the request header is larger than the limit of ", limits_.header_bytes, " bytes"));
    return false;
  }
  if (end == std::string::npos) return false;
  const size_t size = end + kEnd.size();
  parser_ = std::make_unique<Parser>();
  parser_->beast.eager(true);
  parser_->beast.header_limit(static_cast<uint32_t>(size));
  parser_->beast.body_limit(limits_.body_bytes);
  const size_t taken = Put(std::string_view(pending_).substr(0, size));
  if (state_ == State::kError) return false;
  if (taken != size || !parser_->beast.is_header_done()) {
    Fail(400, "malformed HTTP request: the header ends too early");
    return false;
  }
  pending_.erase(0, size);
  scanned_ = 0;
  state_ = State::kBody;
  return true;
}

// Gives bytes to the parser and returns how many it has used.
size_t RequestReader::Put(std::string_view bytes) {
  boost::beast::error_code error;
  const size_t taken = parser_->beast.put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (!error || error == http::error::need_more) return taken;
  if (error == http::error::body_limit) {
    Fail(413, Cat("the request body is larger than the limit of ", limits_.body_bytes, " bytes"));
  } else {
    Fail(400, Cat("malformed HTTP request: ", error.message()));
  }
  return taken;
}

void RequestReader::Fail(int status, std::string message) {
  state_ = State::kError;
  error_ = {status, std::move(message)};
  pending_.clear();
}

size_t RequestReader::body_bytes() const { return parser_ ? parser_->beast.get().body().size() : 0; }

bool RequestReader::TakeExpectation() {
  if (state_ != State::kBody || expectation_taken_) return false;
  expectation_taken_ = true;
  return boost::beast::iequals(parser_->beast.get()[http::field::expect], "100-continue");
}

HttpRequest RequestReader::Take() {
  auto message = parser_->beast.release();
  HttpRequest request;
  request.method = ToString(message.method_string());
  std::string target = ToString(message.target());
  if (const size_t fragment = target.find('#'); fragment != std::string::npos) target.resize(fragment);
  if (const size_t scheme = target.find("://"); target[0] != '/' && scheme != std::string::npos) {  // absolute form
    const size_t slash = target.find('/', scheme + 3);
    target = slash == std::string::npos ? "/" : target.substr(slash);
  }
  const size_t question = target.find('?');
  request.path = PercentDecode(std::string_view(target).substr(0, question));
  if (question != std::string::npos) request.query = target.substr(question + 1);
  for (const auto& field : message) request.headers.emplace_back(ToLower(field.name_string()), ToString(field.value()));
  request.body = std::move(message.body());
  request.http_1_0 = message.version() < 11;
  request.keep_alive = message.keep_alive();
  return request;
}

void RequestReader::Next() {
  parser_.reset();
  scanned_ = 0;
  state_ = State::kEmpty;
  expectation_taken_ = false;
  Parse();
}

}  // namespace baton
