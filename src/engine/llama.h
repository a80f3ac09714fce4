// A Llama on one backend: loads a model's weights into it and runs batches.
//
//   BATON_ASSIGN_OR_RETURN(auto engine, CreateLlamaEngine(model, std::move(backend), options));
//   BATON_ASSIGN_OR_RETURN(StepOutput output, engine->Run(batch, sink));
//
// Threading: as Engine. Ownership: the engine takes the backend; the model may go once this has returned.
// Errors: InvalidArgument when the model or the options do not fit; Unimplemented for a weight type that the backend
// has no kernel for, with the weight's name. Run refuses an impossible batch with InvalidArgument before it computes.
// Limits: what EngineOptions say.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "core/engine.h"
#include "model/model.h"

namespace baton {

struct EngineOptions {
  int64_t kv_bytes = int64_t{256} << 20;  // of the KV cache; whole blocks
  int32_t block_size = 0;                 // tokens; 0: the backend's default
  std::optional<DType> kv_dtype;          // none: the backend's default
  int32_t max_model_len = 0;              // tokens; 0: what the model was trained for
  int32_t max_batch_tokens = 2048;        // of one step
  int32_t max_sequences = 64;             // of one step
  int32_t layer_group = 0;                // layers between two calls of the sink; 0: a quarter of the model
  std::vector<TokenId> end_tokens;        // masked by min_tokens; empty: the model's
  // Called with the share of the weights that is loaded, from 0 to 1, on the loading thread.
  std::function<void(double fraction)> on_progress;
};

absl::StatusOr<std::unique_ptr<Engine>> CreateLlamaEngine(const Model& model, std::unique_ptr<Backend> backend,
                                                          const EngineOptions& options);

}  // namespace baton
