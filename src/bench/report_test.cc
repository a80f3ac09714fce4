#include "bench/report.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace baton {
namespace {

constexpr int64_t kMs = 1'000'000;

// Sent at `sent` ms, with content at the given ms after it.
RequestRecord Record(int64_t sent, std::vector<int64_t> content, int64_t tokens) {
  RequestRecord record{.due_ns = sent * kMs, .sent_ns = sent * kMs, .prompt_tokens = 100, .output_tokens = tokens};
  for (const int64_t ms : content) record.token_ns.push_back((sent + ms) * kMs);
  record.end_ns = record.token_ns.empty() ? record.sent_ns : record.token_ns.back() + kMs;
  return record;
}

LoadResult ThreeRequests() {
  LoadResult result{.start_ns = 0, .end_ns = 2000 * kMs};
  result.records = {Record(0, {100, 110, 140}, 3),    // gaps 10, 30; TPOT 20
                    Record(500, {300, 310, 320}, 3),  // gaps 10, 10; TPOT 10
                    Record(900, {}, 0)};
  result.records[2].error = "HTTP 503: full";
  return result;
}

TEST(Report, ComputesTheDefinitions) {
  const Figures figures = ComputeFigures(ThreeRequests(), {.ttft_ms = 200, .itl_ms = 20});
  EXPECT_EQ(figures.succeeded, 2);
  EXPECT_EQ(figures.failed, 1);
  EXPECT_EQ(figures.errors.at("HTTP 503: full"), 1);
  EXPECT_EQ(figures.output_tokens, 6);
  EXPECT_DOUBLE_EQ(figures.seconds, 2);
  EXPECT_DOUBLE_EQ(figures.ttft_ms.mean, 200);
  EXPECT_EQ(figures.itl_ms.count, 4);
  EXPECT_DOUBLE_EQ(figures.itl_ms.mean, 15);
  EXPECT_DOUBLE_EQ(figures.itl_ms.max, 30);
  EXPECT_DOUBLE_EQ(figures.tpot_ms.mean, 15);
  EXPECT_DOUBLE_EQ(figures.tpot_ms.p50(), 15);
  EXPECT_DOUBLE_EQ(figures.e2e_ms.max, 321);
  EXPECT_DOUBLE_EQ(figures.output_tokens_per_second, 3);
  EXPECT_DOUBLE_EQ(figures.tokens_per_second_per_user, 1000.0 / 15);
  EXPECT_DOUBLE_EQ(figures.requests_per_second, 1);
  EXPECT_EQ(figures.good_requests, 1);  // the second one's TTFT is 300
  EXPECT_DOUBLE_EQ(figures.goodput_per_second, 0.5);
}

TEST(Report, TokensThatCameTogetherCountInTpotButNotInItl) {
  LoadResult result{.start_ns = 0, .end_ns = 1000 * kMs};
  result.records = {Record(0, {100, 160}, 4)};
  const Figures figures = ComputeFigures(result, {});
  EXPECT_DOUBLE_EQ(figures.tpot_ms.mean, 20);
  EXPECT_EQ(figures.itl_ms.count, 1);
  EXPECT_EQ(figures.pieces, 2);
}

TEST(Report, PercentilesInterpolate) {
  const Distribution ten = Summarize({10, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_DOUBLE_EQ(ten.p50(), 5.5);
  EXPECT_DOUBLE_EQ(ten.p90(), 9.1);
  EXPECT_DOUBLE_EQ(ten.p99(), 9.91);
  EXPECT_DOUBLE_EQ(ten.min, 1);
  EXPECT_DOUBLE_EQ(ten.max, 10);
  EXPECT_DOUBLE_EQ(Summarize({7}).p99(), 7);
  EXPECT_EQ(Summarize({}).count, 0);
}

TEST(Report, TheTableShowsErrorsAndFigures) {
  const ReportContext context{.url = "http://x", .model = "m", .prefix_cache_reset = true};
  const std::string table = FormatTable(context, ComputeFigures(ThreeRequests(), {}));
  for (const char* part : {"2 done, 1 failed", "1 × HTTP 503: full", "TTFT", "3.0 tokens/s", "200.00"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << table;
  }
  EXPECT_EQ(table.find("note:"), std::string::npos) << table;
}

TEST(Report, TheTableSaysWhenTheClientWasHeldUp) {
  const Figures figures = ComputeFigures(ThreeRequests(), {});  // two seconds long
  EXPECT_EQ(FormatTable({.client_wait_seconds = 0.03}, figures).find("waited"), std::string::npos);
  EXPECT_NE(FormatTable({.client_wait_seconds = 0.05}, figures).find("waited 0.05 s"), std::string::npos);
}

TEST(Report, JsonHoldsTheSameFigures) {
  const ReportContext context{.url = "http://x", .model = "m\n\"", .version_json = R"({"version":"1"})"};
  const auto value = boost::json::parse(FormatJson(context, ComputeFigures(ThreeRequests(), {})));
  EXPECT_EQ(value.at("itl_ms").at("count").as_int64(), 4);
  EXPECT_DOUBLE_EQ(value.at("ttft_ms").at("percentiles").at("50").as_double(), 200);
  EXPECT_DOUBLE_EQ(value.at("ttft_ms").at("percentiles").at("99.9").as_double(), 299.8);
  EXPECT_EQ(value.at("settings").at("model").as_string(), "m\n\"");
  EXPECT_EQ(value.at("server").at("version").at("version").as_string(), "1");
  EXPECT_TRUE(value.at("server").at("cluster").is_null());
  EXPECT_EQ(value.at("errors").at("HTTP 503: full").as_int64(), 1);
}

TEST(Report, NothingSucceeded) {
  LoadResult result{.start_ns = 0, .end_ns = 0};
  result.records.resize(1);
  result.records[0].error = "connect: Connection refused";
  const Figures figures = ComputeFigures(result, {});
  EXPECT_EQ(figures.output_tokens_per_second, 0);
  EXPECT_NE(FormatTable({}, figures).find("0 done, 1 failed"), std::string::npos);
  EXPECT_EQ(boost::json::parse(FormatJson({}, figures)).at("ttft_ms").at("count").as_int64(), 0);
}

}  // namespace
}  // namespace baton
