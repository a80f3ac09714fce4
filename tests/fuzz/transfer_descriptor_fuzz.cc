// Folders: transfer
// Memory descriptors from a stranger: they are refused, or name memory that can be written from end to end.
#include <fcntl.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "device/host_memory.h"
#include "transfer/transport.h"

namespace baton {
namespace {

constexpr int64_t kBytes = 1 << 16;

void TryImport(Transport& transport, std::string_view descriptor, UniqueFd fd) {
  const absl::StatusOr<std::unique_ptr<RemoteMemory>> remote = transport.Import(descriptor, std::move(fd));
  if (!remote.ok()) return;
  if ((*remote)->bytes() < 1 || (*remote)->bytes() > kBytes) std::abort();
  const uint8_t byte = 1;
  const absl::Status status = (*remote)->Post({{&byte, 0, 1}, {&byte, (*remote)->bytes() - 1, 1}}, Epoch{1}, nullptr);
  if (!status.ok()) std::abort();
  (*remote)->Flush();
}

}  // namespace
}  // namespace baton

// The first byte: 0 gives no file descriptor, 1 exported memory, else something else. The second: at which byte one
// that was really exported is changed (beyond its end: nowhere) before the rest of the input replaces it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  static HostMemory* const memory = new HostMemory(*HostMemory::Create("fuzz", kBytes));
  static Transport* const transports[] = {MakeLocalTransport().release(), MakeSharedMemoryTransport().release()};
  if (size < 2) return 0;
  for (Transport* transport : transports) {
    const absl::StatusOr<ExportedMemory> exported = transport->Export({memory->data(), memory->bytes(), memory->fd()});
    std::string descriptor = exported->descriptor;
    if (data[1] < descriptor.size()) {
      descriptor.replace(data[1], std::string::npos, reinterpret_cast<const char*>(data) + 2, size - 2);
    }
    UniqueFd fd;
    if (data[0] == 1) fd = UniqueFd(fcntl(memory->fd(), F_DUPFD_CLOEXEC, 0));
    if (data[0] > 1) fd = UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC));
    TryImport(*transport, descriptor, std::move(fd));
  }
  return 0;
}
