#include "rpc/cache_messages.h"

namespace baton {
namespace {

constexpr size_t kHashBytes = 16;

void AppendInteger(std::string& out, uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

uint64_t ReadInteger(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  return value;
}

void AppendHash(std::string& out, const BlockHash& hash) {
  AppendInteger(out, hash.high);
  AppendInteger(out, hash.low);
}

BlockHash ReadHash(std::string_view bytes) { return {.high = ReadInteger(bytes), .low = ReadInteger(bytes.substr(8))}; }

}  // namespace

std::string EncodeHashes(std::span<const BlockHash> hashes) {
  std::string out;
  out.reserve(hashes.size() * kHashBytes);
  for (const BlockHash& hash : hashes) AppendHash(out, hash);
  return out;
}

absl::StatusOr<std::vector<BlockHash>> DecodeHashes(std::string_view bytes) {
  if (bytes.size() % kHashBytes != 0) {
    return InvalidArgument("names of blocks: expected a multiple of ", kHashBytes, " bytes, found ", bytes.size());
  }
  std::vector<BlockHash> hashes;
  hashes.reserve(bytes.size() / kHashBytes);
  for (size_t i = 0; i < bytes.size(); i += kHashBytes) hashes.push_back(ReadHash(bytes.substr(i, kHashBytes)));
  return hashes;
}

void ToProto(uint64_t first, std::span<const CacheChange> changes, proto::CacheChanges* out) {
  out->set_first(first);
  std::string& hashes = *out->mutable_hashes();
  hashes.reserve(changes.size() * kHashBytes);
  for (const CacheChange& change : changes) {
    out->mutable_kinds()->push_back(static_cast<char>(change.kind));
    AppendHash(hashes, change.hash);
  }
}

absl::StatusOr<std::vector<CacheChange>> FromProto(const proto::CacheChanges& message) {
  const std::string& kinds = message.kinds();
  const std::string_view hashes = message.hashes();
  if (hashes.size() != kinds.size() * kHashBytes) {
    return InvalidArgument("cache changes: ", kinds.size(), " kinds and ", hashes.size(), " bytes of names");
  }
  std::vector<CacheChange> changes;
  changes.reserve(kinds.size());
  for (size_t i = 0; i < kinds.size(); ++i) {
    const auto kind = static_cast<uint8_t>(kinds[i]);
    if (kind > static_cast<uint8_t>(CacheChange::Kind::kCleared)) {
      return InvalidArgument("cache changes: unknown kind ", static_cast<int>(kind));
    }
    changes.push_back({static_cast<CacheChange::Kind>(kind), ReadHash(hashes.substr(i * kHashBytes, kHashBytes))});
  }
  return changes;
}

void ToProto(const StepTimeTable& times, proto::StepTimes* out) {
  for (const StepTimeTable::Point& point : times.products) {
    out->add_tokens(point.tokens);
    out->add_us(point.us);
  }
  out->set_decode_row_us(times.decode_row_us);
  out->set_decode_only_us(times.decode_only_us);
  out->set_decode_context_us(times.decode_context_us);
  out->set_prefill_context_us(times.prefill_context_us);
}

absl::StatusOr<StepTimeTable> FromProto(const proto::StepTimes& message) {
  if (message.tokens_size() != message.us_size()) {
    return InvalidArgument("step times: ", message.tokens_size(), " points and ", message.us_size(), " times");
  }
  StepTimeTable times{.decode_row_us = message.decode_row_us(),
                      .decode_only_us = message.decode_only_us(),
                      .decode_context_us = message.decode_context_us(),
                      .prefill_context_us = message.prefill_context_us()};
  for (int i = 0; i < message.tokens_size(); ++i) times.products.push_back({message.tokens(i), message.us(i)});
  BATON_RETURN_IF_ERROR(times.Validate());
  return times;
}

}  // namespace baton
