// Block names and step times in messages: one home for both directions.
//
// Errors: InvalidArgument when a message holds what no correct peer sends.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/block_hash.h"
#include "core/cache_change.h"
#include "core/step_time_table.h"
#include "proto/baton.pb.h"

namespace baton {

std::string EncodeHashes(std::span<const BlockHash> hashes);
absl::StatusOr<std::vector<BlockHash>> DecodeHashes(std::string_view bytes);

// `first`: number of the first change.
void ToProto(uint64_t first, std::span<const CacheChange> changes, proto::CacheChanges* out);
absl::StatusOr<std::vector<CacheChange>> FromProto(const proto::CacheChanges& message);

void ToProto(const StepTimeTable& times, proto::StepTimes* out);
absl::StatusOr<StepTimeTable> FromProto(const proto::StepTimes& message);

}  // namespace baton
