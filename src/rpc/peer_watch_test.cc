#include "rpc/peer_watch.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

// The first silent beat, from 1, after which the peer has the health; 0 when that does not happen in 1000 beats.
int BeatsUntil(PeerHealth health, ProcessState state) {
  PeerWatch watch({});
  watch.Beat(true, [] { return ProcessState::kUnknown; });
  for (int beat = 1; beat <= 1000; ++beat) {
    if (watch.Beat(false, [&] { return state; }) == health) return beat;
  }
  return 0;
}

TEST(PeerWatchTest, AStoppedProcessIsSuspectedSoonAndLostAfterASecond) {
  EXPECT_EQ(BeatsUntil(PeerHealth::kSuspected, ProcessState::kStopped), 2);
  EXPECT_EQ(BeatsUntil(PeerHealth::kLost, ProcessState::kStopped), 10);
}

TEST(PeerWatchTest, ASilentProcessIsSuspectedAndLostMuchLater) {
  for (const ProcessState state : {ProcessState::kIdle, ProcessState::kUnknown}) {
    EXPECT_EQ(BeatsUntil(PeerHealth::kSuspected, state), 4);
    EXPECT_EQ(BeatsUntil(PeerHealth::kLost, state), 50);
  }
}

TEST(PeerWatchTest, AProcessAtWorkIsSuspectedLateAndNeverLost) {
  EXPECT_EQ(BeatsUntil(PeerHealth::kSuspected, ProcessState::kActive), 20);
  EXPECT_EQ(BeatsUntil(PeerHealth::kLost, ProcessState::kActive), 0);
}

TEST(PeerWatchTest, OneThatADebuggerHoldsIsSuspectedAndNeverLost) {
  EXPECT_EQ(BeatsUntil(PeerHealth::kSuspected, ProcessState::kTraced), 2);
  EXPECT_EQ(BeatsUntil(PeerHealth::kLost, ProcessState::kTraced), 0);
}

TEST(PeerWatchTest, NobodyIsLostWhoWasSeenAtWorkInBetween) {
  PeerWatch watch({});
  for (int beat = 1; beat <= 1000; ++beat) {
    const ProcessState state = beat % 40 == 0 ? ProcessState::kActive : ProcessState::kIdle;
    EXPECT_NE(watch.Beat(false, [&] { return state; }), PeerHealth::kLost);
  }
}

TEST(PeerWatchTest, AStopIsCountedFromWhenItWasSeen) {
  PeerWatch watch({});
  for (int beat = 0; beat < 30; ++beat) watch.Beat(false, [] { return ProcessState::kActive; });
  int beats = 0;
  while (watch.Beat(false, [] { return ProcessState::kStopped; }) != PeerHealth::kLost) ASSERT_LT(++beats, 20);
  EXPECT_GE(beats, 8);
}

TEST(PeerWatchTest, OneByteClearsASuspicion) {
  PeerWatch watch({});
  for (int beat = 0; beat < 8; ++beat) watch.Beat(false, [] { return ProcessState::kStopped; });
  EXPECT_EQ(watch.health(), PeerHealth::kSuspected);
  EXPECT_EQ(watch.silent_ms(), 800);
  EXPECT_EQ(watch.Beat(true, [] { return ProcessState::kStopped; }), PeerHealth::kWell);
  EXPECT_EQ(watch.silent_ms(), 0);
}

TEST(PeerWatchTest, WhoIsHeardIsNotLookedAt) {
  PeerWatch watch({});
  int looks = 0;
  for (int beat = 0; beat < 100; ++beat) {
    watch.Beat(beat % 2 == 0, [&] {
      ++looks;
      return ProcessState::kStopped;
    });
  }
  EXPECT_EQ(looks, 0);
}

}  // namespace
}  // namespace baton
