// Copies between allocations of GPUs, by the GPU that holds the sources: in batches, on a stream of its own with the
// highest priority, so that they slip in between the kernels of a step.
#include <algorithm>
#include <utility>

#include "device/cuda_device.h"
#include "device/cuda_ipc.h"
#include "transfer/descriptor.h"
#include "transfer/export_registry.h"
#include "transfer/queued_memory.h"

namespace baton {

namespace {

// Written before anybody can cancel: about 50 us within a GPU, a quarter of a millisecond over NVLink.
constexpr int64_t kSliceBytes = int64_t{64} << 20;

// The stream and the arrays of a batch, made by the first copy. Only the queue's thread uses it.
class Copier {
 public:
  explicit Copier(int32_t device) : device_(device) {}

  absl::Status Write(uint8_t* base, std::span<const CopyRange> pieces) {
    BATON_RETURN_IF_CUDA_ERROR(cudaSetDevice(device_));
    if (stream_.get() == nullptr) {
      BATON_ASSIGN_OR_RETURN(stream_, CudaStream::CreateUrgent());
    }
    const absl::Status enqueued = Enqueue(base, pieces);
    const absl::Status ended = stream_.Synchronize();  // whatever was enqueued before an error has ended, too
    return enqueued.ok() ? ended : enqueued;
  }

  bool HasPassed(void* event) {
    cudaSetDevice(device_);
    return cudaEventQuery(static_cast<cudaEvent_t>(event)) != cudaErrorNotReady;  // after an error Write meets it again
  }

 private:
  absl::Status Enqueue(uint8_t* base, std::span<const CopyRange> pieces) {
    if (pieces.size() == 1) {
      return CudaStatus(cudaMemcpyAsync(base + pieces[0].to_offset, pieces[0].from,
                                        static_cast<size_t>(pieces[0].bytes), cudaMemcpyDefault, stream_.get()),
                        "pushing KV blocks");
    }
    to_.clear();
    from_.clear();
    bytes_.clear();
    for (const CopyRange& piece : pieces) {
      to_.push_back(base + piece.to_offset);
      from_.push_back(piece.from);
      bytes_.push_back(static_cast<size_t>(piece.bytes));
    }
    cudaMemcpyAttributes attributes = {};
    attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    size_t first = 0;
    return CudaStatus(cudaMemcpyBatchAsync(to_.data(), from_.data(), bytes_.data(), pieces.size(), &attributes, &first,
                                           1, stream_.get()),
                      "pushing KV blocks");
  }

  const int32_t device_;
  CudaStream stream_;
  std::vector<void*> to_;
  std::vector<const void*> from_;
  std::vector<size_t> bytes_;
};

class DeviceWriter : public PieceWriter {
 public:
  DeviceWriter(std::shared_ptr<Copier> copier, uint8_t* base, CudaPeerMemory opened)
      : copier_(std::move(copier)), base_(base), opened_(std::move(opened)) {}
  absl::Status WritePieces(std::span<const CopyRange> pieces, Epoch, void*) override {
    return copier_->Write(base_, pieces);  // the event has passed
  }
  bool HasPassed(void* event) override { return copier_->HasPassed(event); }

 private:
  const std::shared_ptr<Copier> copier_;
  uint8_t* const base_;
  const CudaPeerMemory opened_;  // empty for memory of this process
};

class CudaIpcTransport : public Transport {
 public:
  explicit CudaIpcTransport(int32_t device) : device_(device), copier_(std::make_shared<Copier>(device)) {}
  const std::string& name() const override { return name_; }
  const TransportCapabilities& capabilities() const override { return capabilities_; }

  absl::StatusOr<ExportedMemory> Export(const LocalMemory& memory) override {
    BATON_ASSIGN_OR_RETURN(const CudaIpcHandle handle, ExportCudaMemory(device_, memory.base, memory.bytes));
    ExportRegistry::Entry entry = ExportRegistry::Get().Add(memory);
    Numbers numbers{ExportRegistry::Get().process(), entry.id, static_cast<uint64_t>(memory.bytes), handle.gpu[0],
                    handle.gpu[1]};
    std::copy(handle.handle.begin(), handle.handle.end(), numbers.begin() + kHandleAt);
    return ExportedMemory{.descriptor = EncodeDescriptor(kCudaIpcMagic, numbers),
                          .registration = std::move(entry.registration)};
  }

  absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view descriptor, UniqueFd) override {
    BATON_ASSIGN_OR_RETURN(const Numbers numbers, DecodeDescriptor<kNumbers>(kCudaIpcMagic, descriptor));
    if (numbers[0] == ExportRegistry::Get().process()) {  // CUDA opens no memory of its own process
      BATON_ASSIGN_OR_RETURN(const LocalMemory memory, ExportRegistry::Get().Find(numbers[1]));
      return Make(memory.base, memory.bytes, CudaPeerMemory());
    }
    CudaIpcHandle handle{.gpu = {numbers[3], numbers[4]}, .bytes = static_cast<int64_t>(numbers[2])};
    std::copy(numbers.begin() + kHandleAt, numbers.end(), handle.handle.begin());
    BATON_ASSIGN_OR_RETURN(CudaPeerMemory opened, CudaPeerMemory::Open(device_, handle));
    uint8_t* const base = opened.data();
    const int64_t bytes = opened.bytes();
    return Make(base, bytes, std::move(opened));
  }

  TransferProgress progress() const override { return queue_->progress(); }

 private:
  // The process and the number of its entry, bytes, the GPU, the handle.
  static constexpr size_t kHandleAt = 5;
  static constexpr size_t kNumbers = 13;
  using Numbers = std::array<uint64_t, kNumbers>;

  std::unique_ptr<RemoteMemory> Make(uint8_t* base, int64_t bytes, CudaPeerMemory opened) {
    return MakeQueuedMemory(queue_, std::make_unique<DeviceWriter>(copier_, base, std::move(opened)), bytes);
  }

  const std::string name_ = "cuda-ipc";
  const TransportCapabilities capabilities_ = {
      .crosses_processes = true,
      .overlaps_compute = true,
      .floor_gigabytes_per_second = 20,
      .advice =
          "between two GPUs look for NVLink (nvidia-smi topo -m); two processes on one GPU take turns on it, and one "
          "process (leave --isolate out) hands over without copies"};
  const int32_t device_;
  const std::shared_ptr<Copier> copier_;
  const std::shared_ptr<TransferQueue> queue_ = TransferQueue::Create("copy-cuda", kSliceBytes);
};

}  // namespace

std::unique_ptr<Transport> MakeCudaIpcTransport(int32_t device) { return std::make_unique<CudaIpcTransport>(device); }

}  // namespace baton
