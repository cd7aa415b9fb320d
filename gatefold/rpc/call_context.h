#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold {

// Who calls, for servers that find out (ServerOptions::authorize). A service knows what kind it is.
class Principal {
 public:
  virtual ~Principal() = default;
  virtual const std::string& name() const = 0;  // for logs; no secret
};

// What a handler may know about its caller. Shared; may outlive the call. Threads: safe.
class CallContext {
 public:
  CallContext(std::string method, std::string peer, absl::Time received, absl::Time deadline,
              std::vector<std::pair<std::string, std::string>> metadata)
      : method_(std::move(method)),
        peer_(std::move(peer)),
        received_(received),
        deadline_(deadline),
        metadata_(std::move(metadata)) {}

  const std::string& method() const { return method_; }
  const std::string& peer() const { return peer_; }  // "ipv4:127.0.0.1:51234"
  absl::Time received() const { return received_; }
  absl::Time deadline() const { return deadline_; }  // InfiniteFuture: none
  // Whom the peer's certificate is for (its alternative names); empty without one.
  const std::vector<std::string>& peer_names() const { return peer_names_; }
  void set_peer_names(std::vector<std::string> names) { peer_names_ = std::move(names); }
  // Null: anybody. Set before the handler runs, and not changed after.
  const std::shared_ptr<Principal>& principal() const { return principal_; }
  void set_principal(std::shared_ptr<Principal> principal) { principal_ = std::move(principal); }
  // First value of a metadata key (lower case), "" if there is none.
  absl::string_view Metadata(absl::string_view key) const;

  // The caller cancelled, went away, or its deadline passed.
  bool cancelled() const;
  // Runs `callback` once when that happens: on the poll thread, or right here if it has happened.
  // Never runs after the call ended well. One callback per call. Must not block.
  void OnCancel(std::function<void()> callback);

 private:
  friend class ServerCall;
  void Cancelled();
  void Ended();  // forgets the callback

  const std::string method_;
  const std::string peer_;
  const absl::Time received_;
  const absl::Time deadline_;
  const std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<std::string> peer_names_;
  std::shared_ptr<Principal> principal_;

  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void()> on_cancel_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
