// Folders: transfer
// The transport contract within one process, over all transports that need no device.
#include "transport_suite.h"

namespace baton {
namespace {

INSTANTIATE_TEST_SUITE_P(Transports, TransportContractTest, testing::ValuesIn(AllTransports()),
                         [](const auto& info) { return info.param.name; });

TEST(TransportTest, MemoryOfAnotherKindIsRefusedByName) {
  HostContractMemory memory(kBytes);
  const auto shared = MakeSharedMemoryTransport();
  const auto local = MakeLocalTransport();
  const absl::Status status = shared->Import(local->Export(memory.local())->descriptor, UniqueFd()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(status).find("there are memory of one process only (local), here host memory (shm)"),
            std::string_view::npos)
      << status;
  const std::string gpu = "cudaipcm" + std::string(104, 'x');
  EXPECT_NE(Message(shared->Import(gpu, UniqueFd()).status()).find("GPU memory (cuda-ipc)"), std::string_view::npos);
}

TEST(TransportTest, CopiesOfACoreWaitForNoEventOfADevice) {
  HostContractMemory memory(kBytes);
  const auto transport = MakeLocalTransport();
  const auto exported = transport->Export(memory.local());
  const auto remote = *transport->Import(exported->descriptor, UniqueFd());
  absl::Status result;
  int event = 0;
  ASSERT_TRUE(remote
                  ->Post(
                      {{memory.data(), 100, 10}}, Epoch{1}, [&](const TransferResult& r) { result = r.status; }, &event)
                  .ok());
  remote->Flush();
  EXPECT_EQ(result.code(), absl::StatusCode::kFailedPrecondition) << result;
}

}  // namespace
}  // namespace baton
