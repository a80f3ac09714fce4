#include "base/metrics.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(MetricsTest, RendersCountersWithEscapedLabels) {
  MetricRegistry registry;
  registry.AddCounter("requests_total", "Requests.", {{"model", "a\"b\\c\n"}}).Add(3);
  EXPECT_EQ(registry.Render(),
            "# HELP requests_total Requests.\n# TYPE requests_total counter\n"
            "requests_total{model=\"a\\\"b\\\\c\\n\"} 3\n");
}

TEST(MetricsTest, SameNameAndLabelsAreOneMetric) {
  MetricRegistry registry;
  EXPECT_EQ(&registry.AddGauge("g", ""), &registry.AddGauge("g", ""));
}

TEST(MetricsTest, HistogramBucketsAreCumulativeAndInclusive) {
  MetricRegistry registry;
  Histogram& histogram = registry.AddHistogram("h", "", {1, 2});
  for (const double value : {0.5, 1.0, 1.5, 9.0}) histogram.Observe(value);
  EXPECT_EQ(registry.Render(),
            "# HELP h \n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 3\nh_bucket{le=\"+Inf\"} 4\n"
            "h_sum 12\nh_count 4\n");
}

}  // namespace
}  // namespace baton
