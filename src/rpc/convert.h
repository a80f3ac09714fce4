// Between the messages of proto/baton.proto and the values of core: one home for both directions.
//
// Errors: InvalidArgument when a message holds what no correct peer sends (unknown enum values, absurd counts).
#pragma once

#include "base/status.h"
#include "core/request.h"
#include "proto/baton.pb.h"

namespace baton {

void ToProto(const Request& request, proto::Request* out);
absl::StatusOr<Request> FromProto(const proto::Request& message);

void ToProto(const SampledToken& token, proto::Token* out);
SampledToken FromProto(const proto::Token& message);

// The stream is the caller's to fill.
void ToProto(const TokenEvent& event, proto::TokenUpdate* out);
absl::StatusOr<TokenEvent> FromProto(const proto::TokenUpdate& message);

void ToProto(const absl::Status& status, proto::Status* out);
absl::Status FromProto(const proto::Status& message);

absl::StatusOr<FinishReason> FinishReasonFromProto(int32_t value);

}  // namespace baton
