// What the command line says, as plain values. command_line.cc fills them in; nothing else knows flags.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/ids.h"
#include "core/prefill_dial.h"
#include "proto/baton.pb.h"

namespace baton {

// What every process that runs or describes the model needs. Zero: chosen from the model and the machine.
struct EngineFlags {
  std::string model;                    // file, directory, or with load_format dummy also a shape's name
  std::string load_format = "auto";     // "auto" or "dummy"
  std::string sim;                      // simulated engine: a profile, see ParseSimProfile
  std::string device = "auto";          // "auto": a Hopper GPU if there is one, else the CPU; "cpu", "cuda"
  int32_t gpu = 0;                      // index of this worker's GPU
  int32_t gpu_share = 1;                // processes that share it, in time slices
  std::string cpu_isa = "auto";         // "auto": the best there is; or one of CpuInstructionSets()
  std::string kv_cache_dtype = "auto";  // "auto", "f16", "f32", "int8", "bf16", "fp8"
  int32_t machine_share = 1;            // workers that share this machine's cores and memory
  int32_t threads = 0;
  std::string core_share;  // file through which they share the cores (device/core_share.h), and this worker's place
  int32_t core_index = 0;
  int32_t block_size = 0;  // tokens
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  int32_t prefill_budget = -1;  // prompt tokens beside decode rows; -1: the dial, from the targets
  LatencyTargets targets;
  double kv_cache_gib = 0;
  int32_t max_model_len = 0;  // tokens
  bool no_prefix_caching = false;
  bool deterministic = false;  // GPUs: the same tokens whatever the batch, at a price; CPUs always compute so
  uint64_t seed = 0;           // of dummy weights
};

// In the environment of the processes of one deployment: a secret, in hex, that names KV blocks. Of the deployment,
// from its supervisor: without it nobody outside can tell which tokens share a block's name.
inline constexpr char kHashSecretVariable[] = "BATON_HASH_SECRET";
inline uint64_t DeploymentSecret() {
  const char* secret = std::getenv(kHashSecretVariable);
  return secret == nullptr ? 0 : std::strtoull(secret, nullptr, 16);
}

struct CommonFlags {
  std::string log_format = "text";
  bool verbose = false;
};

struct FrontendFlags {
  std::string host = "127.0.0.1";
  int32_t port = 8000;  // 0: any free one
  std::string served_model_name;
  std::vector<std::string> api_keys;
  std::string chat_template;      // a file that replaces the model's own
  int32_t max_in_flight = 1024;   // requests
  int64_t max_queued_tokens = 0;  // prompt tokens of requests in flight; 0: no limit of its own
  int64_t request_timeout_ms = 600000;
  int64_t drain_timeout_ms = 30000;
  int64_t max_local_prefill = -1;  // tokens that a decode worker prefills itself; -1: as the dial says
  std::string reasoning_parser;
};

struct PoolFlag {  // "2x1": two workers of tensor-parallel size one
  int32_t workers = 0;
  int32_t tensor_parallel = 1;
};

// Which workers share a process.
enum class ProcessPlacement : uint8_t {
  kAutomatic,  // those of one GPU; on CPUs every worker has a process of its own
  kIsolated,   // none
  kShared,     // on CPUs all of them
};

struct ServeFlags {
  CommonFlags common;
  EngineFlags engine;
  FrontendFlags frontend;
  PoolFlag prefill, decode, hybrid;
  std::vector<int32_t>
      gpus;  // taken in turn by the workers, in the order prefill, decode, hybrid; empty: all there are
  ProcessPlacement placement = ProcessPlacement::kAutomatic;
  double min_path_gbps = 0;
  bool verify_kv = false;
  double transfer_throttle_gbps = 0;   // tests: no faster than this
  int32_t transfer_corrupt_every = 0;  // tests: a bit of every so-many-th piece is changed on its way
  bool mute_handoff = false;           // tests: prefill workers answer nothing of a hand-off
  std::string faults_on;               // tests: the last three are of this process only; empty: of all
  bool end_with_frontend = false;      // its death ends everything; else it is started again
  int64_t wedged_after_ms = 5000;      // without progress: a worker gets no traffic
  int64_t wedged_restart_ms = 30000;   // likewise: it is started again; 0: never
  bool abort_on_leak = false;          // tests
};

// Of the processes that the supervisor starts.
struct ChildFlags {
  std::string supervisor;  // address
  int32_t lifeline_fd = -1;
  int32_t step_record_fd = -1;  // core/step_record.h, a part for each worker
  uint64_t incarnation = 1;
  std::string process;
};

// One worker of a process: "2,decode,decode-0,unix:/…".
struct WorkerFlag {
  uint64_t id = 1;
  std::string role = "hybrid";
  std::string name;
  std::string listen;  // address
};

struct WorkerFlags {
  CommonFlags common;
  EngineFlags engine;
  ChildFlags child;
  WorkerFlag worker;
  std::vector<WorkerFlag> beside;  // other workers of this process, on the same engine
  bool own_engines = false;        // unless each has one of its own
  double min_path_gbps = 0;
  bool verify_kv = false;
  double transfer_throttle_gbps = 0;
  int32_t transfer_corrupt_every = 0;
  bool mute_handoff = false;
  int64_t wedged_after_ms = 5000;
  int64_t wedged_restart_ms = 30000;
  bool abort_on_leak = false;
};

struct FrontendProcessFlags {
  CommonFlags common;
  EngineFlags engine;  // for the tokenizer and limits
  FrontendFlags frontend;
  ChildFlags child;
};

struct BenchServeFlags {
  CommonFlags common;
  std::string url;
  std::string model;        // as served; empty: the first one
  int32_t concurrency = 1;  // closed loop
  double request_rate = 0;  // open loop, requests a second; 0: closed
  int32_t input_tokens = 512;
  int32_t output_tokens = 64;
  int32_t requests = 0;  // 0: ten times the concurrency
  int32_t warmup = -1;   // requests; -1: twice the concurrency
  int32_t shared_prefix_tokens = 0;
  bool text_prompts = false;
  uint64_t seed = 100;
  double ttft_target_ms = 1000;
  double itl_target_ms = 40;
  std::string json;  // file
};

struct BenchEngineFlags {
  CommonFlags common;
  EngineFlags engine;
  std::string shape;               // instead of a model: dummy weights
  std::vector<int32_t> prefill;    // tokens; empty lists: by the device
  std::vector<int32_t> decode;     // rows
  std::vector<std::string> mixed;  // "32x480": decode rows x prompt tokens
  int32_t context = 0;             // tokens
  double seconds = 1;              // for each kind of step
  std::string json;                // file
};

}  // namespace baton
