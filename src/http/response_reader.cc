#include "http/response_reader.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <vector>

namespace baton {
namespace {

namespace http = boost::beast::http;

std::string ToString(boost::beast::string_view view) { return {view.data(), view.size()}; }

}  // namespace

struct ResponseReader::Parser {
  http::response_parser<http::buffer_body> beast;
};

ResponseReader::ResponseReader(const Limits& limits) : limits_(limits) { MakeParser(); }
ResponseReader::~ResponseReader() = default;

void ResponseReader::MakeParser() {
  parser_ = std::make_unique<Parser>();
  parser_->beast.header_limit(static_cast<uint32_t>(limits_.header_bytes));
  parser_->beast.body_limit(limits_.body_bytes);
  parser_->beast.skip(limits_.head_only);
  parser_->beast.eager(true);
}

void ResponseReader::ReadHead() {
  const auto& message = parser_->beast.get();
  http_status_ = static_cast<int>(message.result_int());
  for (const auto& field : message) {
    std::string name = ToString(field.name_string());
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    }
    headers_.emplace_back(std::move(name), ToString(field.value()));
  }
}

absl::Status ResponseReader::Feed(std::string_view bytes, const std::function<void(std::string_view)>& on_body) {
  started_ = true;
  pending_ += bytes;
  size_t used = 0;
  std::vector<char> body(pending_.size());
  while (used < pending_.size() && !parser_->beast.is_done()) {
    auto& beast = parser_->beast;
    beast.get().body() = {body.data(), body.size(), true};
    boost::beast::error_code error;
    const size_t taken = beast.put(boost::asio::const_buffer(pending_.data() + used, pending_.size() - used), error);
    used += taken;
    if (beast.is_header_done() && beast.get().result_int() / 100 == 1) {  // 100 Continue: the answer follows
      MakeParser();
      continue;
    }
    if (beast.is_header_done() && http_status_ == 0) ReadHead();
    const size_t left = beast.get().body().size;
    if (http_status_ != 0 && left < body.size()) on_body({body.data(), body.size() - left});
    if (error == http::error::need_more) break;
    if (error && error != http::error::need_buffer) return DataLoss("malformed HTTP answer: ", error.message());
    if (taken == 0 && !error) break;
  }
  pending_.erase(0, used);
  return absl::OkStatus();
}

void ResponseReader::EndOfInput() {
  boost::beast::error_code ignored;
  if (parser_->beast.is_header_done()) parser_->beast.put_eof(ignored);
}

bool ResponseReader::done() const { return parser_->beast.is_done(); }

bool ResponseReader::keep_alive() const { return parser_->beast.is_header_done() && parser_->beast.get().keep_alive(); }

}  // namespace baton
