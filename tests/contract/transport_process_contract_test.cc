// Folders: transfer
// The transport contract between processes, over all transports that need no device.
#include "transport_process_suite.h"

namespace baton {

std::vector<Implementation> ContractTransports() { return AllTransports(); }
std::map<std::string, std::function<void(const Writer&)>> MoreWriterRoles() { return {}; }

namespace {

INSTANTIATE_TEST_SUITE_P(Transports, OneProcessContractTest,
                         testing::ValuesIn(TransportsThatCrossProcesses(AllTransports(), false)),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Transports, CrossProcessContractTest,
                         testing::ValuesIn(TransportsThatCrossProcesses(AllTransports(), true)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baton

int main(int argc, char** argv) { return baton::RunProcessContract(argc, argv); }
