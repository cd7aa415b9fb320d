#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expert-service/expert_store.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/model/expert_catalog.h"
#include "gatefold/rpc/async_service.h"

namespace gatefold {

// Sends experts to other shards: what this one holds, where the backend can read it back, else from
// the checkpoint. On threads of its own, which step back for those that compute; as many transfers
// at a time as there are threads, and more are refused.
class ExpertSender {
 public:
  struct Options {
    int n_threads = 4;
    absl::Duration stall_timeout =
        absl::Seconds(10);           // a receiver that takes nothing that long is given up
    std::function<void()> on_piece;  // called on the sending thread for each piece; may be empty
  };
  using Stream = ServerStream<internal::v1::FetchExpertResponse>;

  // Catalog and store outlive it.
  ExpertSender(const ExpertCatalog* catalog, const ExpertStore* store, Options options);
  // Transfers must have ended: shut the server down before.
  ~ExpertSender();

  // Never waits. Errors as in expert.proto, told to the stream.
  void Send(std::shared_ptr<CallContext> call, const internal::v1::FetchExpertRequest& request,
            std::shared_ptr<Stream> stream);

  bool has_checkpoint() const { return catalog_->weights() != nullptr; }
  bool sends_held() const { return store_->backend()->can_read_back(); }

  // Of FetchExpert: what waits for a slow receiver.
  static MethodOptions Method();

 private:
  struct Transfer;
  void Run();
  absl::Status Rows(Transfer* transfer) const;
  absl::Status Send(Transfer* transfer) const;

  const ExpertCatalog* const catalog_;
  const ExpertStore* const store_;
  const Options options_;
  absl::Mutex mu_;
  int n_transfers_ ABSL_GUARDED_BY(mu_) = 0;  // waiting for a thread, or on one
  std::deque<std::unique_ptr<Transfer>> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatefold
