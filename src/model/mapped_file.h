// A file as read-only memory. Pages come from the page cache, so processes on one machine share one copy.
//
// Threading: immutable once opened. Ownership: unmaps itself; views into it must not outlive it.
// Errors: NotFound when there is no such file; InvalidArgument when it is not a regular file or empty.
// Limits: a file that is cut short while it is mapped faults its readers (SIGBUS): replace model files by renaming.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"

namespace baton {

class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  void Unmap();

  std::span<const uint8_t> bytes_;
};

}  // namespace baton
