#include "rpc/local_session.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton {
namespace {

TEST(LocalSessionTest, FramesArriveInOrderOnBothEndsAndCloseIsHeardOnceOnEach) {
  std::vector<std::string> here, there, closed;
  std::shared_ptr<Session> accepted;
  const auto session = ConnectWithin(
      "prefill-0",
      {.on_frame = [&](std::string_view frame, UniqueFd) { here.emplace_back(frame); },
       .on_closed = [&](const absl::Status& why) { closed.push_back(Cat("here ", absl::IsCancelled(why))); }},
      [&](const std::shared_ptr<Session>& peer) {
        accepted = peer;
        return SessionEvents{
            .on_frame =
                [&there, peer](std::string_view frame, UniqueFd) {
                  there.emplace_back(frame);
                  peer->Send(Cat("answer to ", frame));
                },
            .on_closed = [&](const absl::Status& why) { closed.push_back(Cat("there ", absl::IsUnavailable(why))); }};
      });
  EXPECT_TRUE(session->within_process());
  session->Send("one");
  session->Send("two");
  EXPECT_EQ(there, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(here, (std::vector<std::string>{"answer to one", "answer to two"}));
  session->Close();
  accepted->Close();
  session->Send("three");
  accepted->Send("four");
  EXPECT_EQ(there.size(), 2u);
  EXPECT_EQ(here.size(), 2u);
  EXPECT_EQ(closed, (std::vector<std::string>{"here true", "there true"}));
}

TEST(LocalSessionTest, ClosingLetsGoOfWhatTheEventsHold) {
  auto held = std::make_shared<int>(1);
  const auto session =
      ConnectWithin("x", {.on_frame = [held](std::string_view, UniqueFd) {}}, [held](std::shared_ptr<Session> peer) {
        return SessionEvents{.on_frame = [held, peer](std::string_view, UniqueFd) {}};
      });
  EXPECT_GT(held.use_count(), 2);
  session->Close();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace baton
