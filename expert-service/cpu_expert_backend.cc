#include <utility>
#include <vector>

#include "expert-service/expert_backend.h"
#include "gatefold/kernels/expert_mlp.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {
namespace {

struct CpuExpert final : HeldExpert {
  CpuExpert(const ExpertWeights::Views& views, ThreadPool* threads, WeightKind kind)
      : weights(views, threads, kind) {}
  size_t size_bytes() const override { return weights.size_bytes(); }
  void CopyRow(ExpertPart part, DType dtype, int64_t row, void* to) const override {
    switch (part) {
      case ExpertPart::kW1:
        return weights.w13().CopyRow(PackedMatrix::RowInEveryOtherPanel(0, row), to);
      case ExpertPart::kW3:
        return weights.w13().CopyRow(PackedMatrix::RowInEveryOtherPanel(1, row), to);
      case ExpertPart::kW2:
        return weights.w2().CopyRow(row, to);
      case ExpertPart::kB1:
        return WriteBack(dtype, weights.b1(), weights.d_ff(), to);
      case ExpertPart::kB3:
        return WriteBack(dtype, weights.b3(), weights.d_ff(), to);
      case ExpertPart::kB2:
        return WriteBack(dtype, weights.b2(), weights.d_model(), to);
    }
  }

  const ExpertWeights weights;
};

class CpuExpertBackend final : public ExpertBackend {
 public:
  CpuExpertBackend(ThreadPool* threads, const ExpertBackendOptions& options)
      : threads_(threads), kind_(options.weights) {}

  std::string name() const override { return "cpu"; }
  std::string device() const override {
    const std::string isa = kernels::Kernels().isa;
    return kind_ == WeightKind::kCheckpoint ? isa : isa + ", " + WeightKindName(kind_);
  }
  uint64_t numerics_class() const override { return kernels::NumericsClass(kind_); }
  size_t HeldBytes(const ExpertLayout::Sizes& expert) const override {
    return ExpertWeights::SizeBytes(expert.dtype, expert.d_model, expert.d_ff, expert.n_biases(),
                                    kind_);
  }
  bool can_read_back() const override { return kind_ == WeightKind::kCheckpoint; }

  absl::StatusOr<std::shared_ptr<const HeldExpert>> Load(const ExpertWeightsView& view,
                                                         ThreadPool* threads) override {
    return std::make_shared<const CpuExpert>(
        ExpertWeights::Views{view.w1, view.w3, view.w2, view.b1, view.b3, view.b2}, threads, kind_);
  }

  absl::Status Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows,
                   float* y) override {
    std::vector<kernels::ExpertGroup> kernel_groups;
    for (const HeldGroup& group : groups) {
      kernel_groups.push_back(
          {&static_cast<const CpuExpert*>(group.expert)->weights, group.rows, group.slots});
    }
    kernels::ExpertMlp(kernel_groups, x, n_rows, y, threads_);
    return absl::OkStatus();
  }

 private:
  ThreadPool* const threads_;
  const WeightKind kind_;
};

}  // namespace

std::unique_ptr<ExpertBackend> MakeCpuExpertBackend(ThreadPool* threads,
                                                    const ExpertBackendOptions& options) {
  return std::make_unique<CpuExpertBackend>(threads, options);
}

}  // namespace gatefold
