// Folders: worker engine rpc transfer scheduler
// Frames that a broken or hostile peer sends to a worker: it must stay alive, answer the next honest request, and have
// all its blocks when idle (else it aborts).
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "base/log.h"
#include "engine/sim_engine.h"
#include "rpc/convert.h"
#include "transfer/transport.h"
#include "worker/worker.h"

namespace baton {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

class Target {
 public:
  Target() {
    ConfigureLogging("fuzz", LogFormat::kText, LogLevel::kError);
    std::string folder = std::filesystem::temp_directory_path() / "baton-fuzz-XXXXXX";
    Require(mkdtemp(folder.data()) != nullptr);
    static const std::string* left_behind = new std::string(folder);
    std::atexit([] { std::filesystem::remove_all(*left_behind); });
    address_ = "unix:" + folder + "/worker";
    network_ = *Network::Create();
    engine_ = *CreateSimEngine(
        {.num_blocks = 64, .block_size = 16, .max_model_len = 512, .max_batch_tokens = 128, .max_sequences = 8});
    transport_ = MakeSharedMemoryTransport();
    WorkerOptions options{.id = {1}, .process = "target", .address = address_};
    options.scheduler = {
        .max_batch_tokens = 128, .max_sequences = 8, .prefill_chunk_tokens = 64, .max_model_len = 512, .eos = {1}};
    options.max_waiting = 64;
    options.abort_on_leak = true;
    loop_ = std::make_unique<StepLoop>(*engine_);
    worker_ = *Worker::Create(*network_, *loop_, *transport_, options);
    thread_ = std::thread([this] { Require(loop_->Run().ok()); });
    thread_.detach();
  }

  // Sends the frame by a session of its own, then an honest request by another.
  void Try(std::string_view frame) {
    {
      auto session = network_->Connect(
          address_, {.on_frame = [](std::string_view, UniqueFd) {}, .on_closed = [](absl::Status) {}}, 5000);
      Require(session.ok());
      (*session)->Send(std::string(frame));
      (*session)->Close();
    }
    if (++tries_ % 8 == 0) AskHonestly();
  }

 private:
  void AskHonestly() {
    std::promise<void> finished;
    bool done = false;
    SessionEvents events{.on_frame =
                             [&](std::string_view answer, UniqueFd) {
                               proto::Envelope envelope;
                               Require(ParseEnvelope(answer, envelope).ok());
                               for (const proto::TokenUpdate& update : envelope.tokens().updates()) {
                                 if (update.finish() == 0 || done) continue;
                                 Require(update.finish() == static_cast<int>(FinishReason::kLength));
                                 done = true;
                                 finished.set_value();
                               }
                             },
                         .on_closed = [](absl::Status) {}};
    auto session = network_->Connect(address_, std::move(events), 5000);
    Require(session.ok());
    Request request{.id = "honest", .prompt = {5, 6, 7}};
    request.sampling.max_tokens = 2;
    request.sampling.ignore_eos = true;
    proto::Envelope envelope;
    envelope.mutable_generate()->set_stream(1);
    ToProto(request, envelope.mutable_generate()->mutable_request());
    SendEnvelope(**session, envelope);
    Require(finished.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    (*session)->Close();
  }

  std::string address_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<StepLoop> loop_;
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
  int64_t tries_ = 0;
};

}  // namespace
}  // namespace baton

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static baton::Target* target = new baton::Target;  // lives as long as the process, like a worker
  target->Try({reinterpret_cast<const char*>(data), size});
  return 0;
}
