#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "attention-service/attention_service.h"
#include "attention-service/options.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// What an attention-service measures, and where it is read.
class AttentionMeter final : public AttentionObserver {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionMeter>> Create(
      const KvBlockPool& kv, const AttentionServiceOptions& options);

  void Watch(std::function<int()> n_sequences);
  void OnCall(int n_rows, absl::Duration queue, absl::Duration compute) override;
  void OnCallDone(const CallRecord& call);

  std::string address() const { return address_; }

 private:
  std::string address_;
};

}  // namespace gatefold
