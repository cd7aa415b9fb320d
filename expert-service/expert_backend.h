#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gatefold/base/host_memory.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/model/expert_layout.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/tensor/quantise.h"

namespace gatefold {

class CudaStream;  // gatefold/device/row_transfer.h

// "checkpoint", "int8" or "int4"; InvalidArgument for another name.
absl::StatusOr<WeightKind> ParseWeightKind(absl::string_view name);

// One expert as its backend keeps it. Immutable.
class HeldExpert {
 public:
  virtual ~HeldExpert() = default;
  virtual size_t size_bytes() const = 0;
  // One row of one part, bit for bit as it was loaded, where the backend can_read_back(). `dtype`:
  // the part's in the checkpoint.
  virtual void CopyRow(ExpertPart part, DType dtype, int64_t row, void* to) const = 0;
};

// Rows that visit one expert: input row rows[i] gives output row slots[i].
struct HeldGroup {
  const HeldExpert* expert = nullptr;
  absl::Span<const int32_t> rows;
  absl::Span<const int32_t> slots;
};

// All experts of a model, for rows that stay on the device where these are (see StepRows): which
// row visits which expert is found out there.
class ResidentExperts {
 public:
  virtual ~ResidentExperts() = default;

  // As ExpertClient::Run; h, routes and answers are the device's memory. Puts its work on the
  // device's stream and does not wait for it, but where memory grows. Threads: safe. Errors:
  // Unavailable (the device failed).
  virtual absl::Status Run(int layer, const float* h, const Routes& routes, float* answers) = 0;

  // Rows this expert has computed, in steps that are over. Threads: safe.
  virtual uint64_t n_rows(int layer, int expert) const = 0;
};

// Where experts are kept and computed: on the CPU, or on a CUDA device. The services, the protocol
// and the laws are the same for both; bits are equal between shards of one numerics class.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;

  virtual std::string name() const = 0;  // "cpu" or "cuda"
  // For people: the instruction set or the device's name, and how weights are kept if quantised.
  virtual std::string device() const = 0;
  // Of what this backend computes; see NumericsClass() in gatefold/kernels/isa.h.
  virtual uint64_t numerics_class() const = 0;

  // Time the device has computed since the start, without copies to and from it; 0 where there is
  // none. Threads: safe.
  virtual double device_seconds() const { return 0; }

  // For rows on their way in and out: Run() takes and puts them there without a copy in between.
  virtual HostMemory row_memory() const { return HeapMemory(); }

  // What size_bytes() of such an expert will be, once it is loaded.
  virtual size_t HeldBytes(const ExpertLayout::Sizes& expert) const = 0;

  // Whether HeldExpert::CopyRow works: not where experts are quantised or lie in a device's memory.
  virtual bool can_read_back() const = 0;

  // Copies an expert, out of the checkpoint or from wherever the view points. Threads: safe, and
  // beside Run(); `threads` may be null. Errors: ResourceExhausted (no memory left), Unavailable
  // (the device failed).
  virtual absl::StatusOr<std::shared_ptr<const HeldExpert>> Load(const ExpertWeightsView& weights,
                                                                 ThreadPool* threads) = 0;

  // Computes all groups, of experts that this backend loaded. x: [n_rows, d_model]. y: [n slots,
  // d_model]. Threads: one call at a time. Errors: Unavailable (the device failed).
  virtual absl::Status Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows,
                           float* y) = 0;

  // For rows that stay on this backend's device. experts: of this backend, [layer][expert], kept
  // from now on; max_rows: of a call, whose memory is taken here; spare_bytes: what must be left on
  // the device for others. The stream outlives it. FailedPrecondition, saying why: there is no
  // device, or it does not compute such experts in one go. ResourceExhausted: it has no room for
  // more than them.
  virtual absl::StatusOr<std::unique_ptr<ResidentExperts>> Reside(
      std::vector<std::vector<std::shared_ptr<const HeldExpert>>> /*experts*/, int /*top_k*/,
      int /*max_rows*/, size_t /*spare_bytes*/, CudaStream* /*stream*/) {
    return absl::FailedPreconditionError("this backend has no device");
  }
};

// What a backend is made for.
struct ExpertBackendOptions {
  std::string name = "auto";  // cpu, cuda, or auto: CUDA where it can be had
  WeightKind weights = WeightKind::kCheckpoint;
  DType dtype = DType::kBF16;  // of the experts in the checkpoint
  int64_t d_model = 0;
  // All of these are to be held at once: what has no room for them cannot be had. Empty: as many as
  // are loaded.
  std::vector<ExpertLayout::Sizes> experts;
};

// Computes with the threads, which outlive it.
std::unique_ptr<ExpertBackend> MakeCpuExpertBackend(ThreadPool* threads,
                                                    const ExpertBackendOptions& options = {});

// On the first CUDA device. NotFound: this build has no CUDA, or there is no device.
// FailedPrecondition: it is too old, it has no room for the experts, or they are of a type or shape
// that it does not compute. Both say why.
absl::StatusOr<std::unique_ptr<ExpertBackend>> MakeCudaExpertBackend(
    const ExpertBackendOptions& options);

// By name. Logs what was chosen and why. The threads are the CPU's. InvalidArgument for another
// name; FailedPrecondition if "cuda" cannot be had.
absl::StatusOr<std::unique_ptr<ExpertBackend>> ChooseExpertBackend(
    const ExpertBackendOptions& options, ThreadPool* threads);

}  // namespace gatefold
