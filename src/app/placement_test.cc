#include "app/placement.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

std::vector<WorkerSpec> Workers(int count) {
  std::vector<WorkerSpec> workers;
  for (int i = 0; i < count; ++i) workers.push_back({.id = {static_cast<uint64_t>(i + 1)}});
  return workers;
}

// "1,2@0 3@1": workers 1 and 2 on GPU 0, worker 3 on GPU 1.
std::string Text(const std::vector<PlacedProcess>& processes) {
  std::string text;
  for (const PlacedProcess& process : processes) {
    if (!text.empty()) text += " ";
    for (size_t i = 0; i < process.workers.size(); ++i) text += Cat(i > 0 ? "," : "", process.workers[i].id.value);
    text += Cat("@", process.gpu);
    if (process.gpu_share > 1) text += Cat("/", process.gpu_share);
  }
  return text;
}

TEST(PlacementTest, OnCpusEachWorkerHasAProcessUnlessTheyShall) {
  EXPECT_EQ(Text(PlaceWorkers(Workers(3), {}, 0, ProcessPlacement::kAutomatic)), "1@-1 2@-1 3@-1");
  EXPECT_EQ(Text(PlaceWorkers(Workers(3), {}, 0, ProcessPlacement::kIsolated)), "1@-1 2@-1 3@-1");
  EXPECT_EQ(Text(PlaceWorkers(Workers(3), {}, 0, ProcessPlacement::kShared)), "1,2,3@-1");
}

TEST(PlacementTest, WorkersOfOneGpuShareAProcessUnlessIsolated) {
  EXPECT_EQ(Text(PlaceWorkers(Workers(2), {0}, 1, ProcessPlacement::kAutomatic)), "1,2@0");
  EXPECT_EQ(Text(PlaceWorkers(Workers(2), {0}, 1, ProcessPlacement::kIsolated)), "1@0/2 2@0/2");
  EXPECT_EQ(Text(PlaceWorkers(Workers(3), {4, 2}, 8, ProcessPlacement::kAutomatic)), "1,3@4 2@2");
  EXPECT_EQ(Text(PlaceWorkers(Workers(3), {4, 2}, 8, ProcessPlacement::kIsolated)), "1@4/2 2@2 3@4/2");
}

TEST(PlacementTest, ManySimulatedWorkersShareProcessesWithAnEngineEach) {
  const std::vector<PlacedProcess> processes = PlaceSimulated(Workers(37), ProcessPlacement::kAutomatic);
  ASSERT_EQ(processes.size(), 3u);
  EXPECT_EQ(processes[0].workers.size(), 16u);
  EXPECT_EQ(processes[2].workers.size(), 5u);
  EXPECT_EQ(processes[2].workers.back().id.value, 37u);
  for (const PlacedProcess& process : processes) EXPECT_TRUE(process.own_engines);
  EXPECT_EQ(PlaceSimulated(Workers(37), ProcessPlacement::kIsolated).size(), 37u);
  EXPECT_EQ(PlaceSimulated(Workers(16), ProcessPlacement::kAutomatic).size(), 16u);
  EXPECT_FALSE(PlaceSimulated(Workers(37), ProcessPlacement::kShared).front().own_engines);
}

TEST(PlacementTest, WithoutAWishTheVisibleGpusAreTakenInTurn) {
  EXPECT_EQ(Text(PlaceWorkers(Workers(3), {}, 2, ProcessPlacement::kAutomatic)), "1,3@0 2@1");
  EXPECT_EQ(Text(PlaceWorkers(Workers(2), {}, 8, ProcessPlacement::kAutomatic)), "1@0 2@1");
}

}  // namespace
}  // namespace baton
