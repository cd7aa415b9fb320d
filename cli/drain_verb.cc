#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "cli/worker_names.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

using cluster::v1::Worker;

constexpr absl::Duration kLook = absl::Milliseconds(200);

// What still depends on a worker; empty: nothing.
std::string Remaining(const Worker& worker) {
  if (worker.n_sole_experts() > 0) {
    return absl::StrCat(worker.n_sole_experts(), " experts that no other shard serves yet");
  }
  if (worker.n_sequences() > 0) return absl::StrCat(worker.n_sequences(), " sequences");
  return "";
}

// Whether requests can start, which takes an attention-service that is ready.
bool CanStart(const std::vector<Worker>& workers) {
  return std::any_of(workers.begin(), workers.end(), [](const Worker& worker) {
    return worker.kind() == cluster::v1::WORKER_KIND_ATTENTION &&
           worker.state() == cluster::v1::WORKER_STATE_READY;
  });
}

absl::Status Explain(const Connection& connection, const grpc::Status& status) {
  const absl::Status converted = connection.ToStatus(status);
  if (!absl::IsUnimplemented(converted)) return converted;
  return WithNextStep(converted,
                      "AdminService is at the address that the router's --admin-listen names: give "
                      "that one as --router.");
}

// What drain and resume share.
class WorkerVerb : public Verb {
 public:
  absl::string_view arguments() const override { return "WORKER"; }

 protected:
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::vector<std::string>& arguments,
                                                      Console* console) {
    GF_RETURN_IF_ERROR(output_.Check());
    if (arguments.size() != 1 || arguments[0].empty()) {
      return UsageError("name one worker, as `gatefold get workers` does, or give its address");
    }
    if (connection_.router.empty()) {
      return UsageError("say which cluster: --router with what a router has as --admin-listen");
    }
    return Connection::Open(connection_, console->interrupts);
  }
  void Show(const Worker& worker, absl::string_view text, Console* console) const {
    if (output_.json()) {
      PrintJson({{"name", worker.name()},
                 {"address", worker.address()},
                 {"state", StateName(worker)},
                 {"n_sole_experts", worker.n_sole_experts()},
                 {"n_sequences", worker.n_sequences()}},
                console->out);
    } else {
      console->out << worker.name() << " " << text << "\n";
    }
  }

  ConnectionFlags connection_;
  OutputFlag output_;
};

class DrainVerb final : public WorkerVerb {
 public:
  absl::string_view name() const override { return "drain"; }
  absl::string_view summary() const override {
    return "Takes a worker out of use, so that it can be stopped without anybody noticing.";
  }
  absl::string_view details() const override {
    return "The experts that only it holds are loaded elsewhere first (that takes a planner, and\n"
           "shards with room); sequences of an attention-service go on at another one, or end where\n"
           "they are if there is none. The process stays: stop it, or `gatefold resume` it.\n";
  }
  void AddFlags(FlagSet* flags) override {
    connection_.AddRouterTo(flags);
    flags->Add("wait", "DURATION", "until nothing depends on it, at most so long (default 5m)",
               &wait_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_ASSIGN_OR_RETURN(const auto connection, Connect(arguments, console));
    cluster::v1::DrainWorkerRequest request;
    request.set_worker(arguments[0]);
    cluster::v1::DrainWorkerResponse response;
    {
      Call call(*connection);
      GF_RETURN_IF_ERROR(Explain(
          *connection, connection->admin()->DrainWorker(call.context(), request, &response)));
    }
    GF_ASSIGN_OR_RETURN(const Worker worker, Await(connection.get(), response.worker(), console));
    if (worker.state() == cluster::v1::WORKER_STATE_UNREACHABLE) {
      Show(worker, "has ended", console);
      return absl::OkStatus();
    }
    if (worker.kind() == cluster::v1::WORKER_KIND_ATTENTION) {
      GF_ASSIGN_OR_RETURN(const std::vector<Worker> workers, connection->ListWorkers());
      if (!CanStart(workers)) {
        Show(worker, "is drained: no attention-service is left, and requests wait for one",
             console);
        return absl::OkStatus();
      }
    }
    Show(worker, "is drained: nothing depends on it any more", console);
    return absl::OkStatus();
  }

 private:
  // Until the worker is out of use, or gone.
  absl::StatusOr<Worker> Await(Connection* connection, Worker worker, Console* console) const {
    const absl::Time deadline = absl::Now() + wait_;
    std::string told;
    while (true) {
      if (worker.state() == cluster::v1::WORKER_STATE_UNREACHABLE) return worker;
      const std::string remaining = Remaining(worker);
      if (remaining.empty()) return worker;
      if (remaining != told) console->err << worker.name() << ": " << remaining << "\n";
      told = remaining;
      if (absl::Now() >= deadline) {
        return WithNextStep(
            absl::DeadlineExceededError(absl::StrCat(worker.name(), " has ", remaining)),
            "It stays draining: wait longer with --wait, look at `gatefold get workers` and at the "
            "planner's log, or take it back with `gatefold resume`.");
      }
      if (!connection->interrupts()->Pause(kLook)) return absl::CancelledError("interrupted");
      GF_ASSIGN_OR_RETURN(const std::vector<Worker> workers, connection->ListWorkers());
      const auto now = std::find_if(workers.begin(), workers.end(), [&worker](const Worker& w) {
        return w.address() == worker.address();
      });
      if (now == workers.end()) {
        worker.set_state(cluster::v1::WORKER_STATE_UNREACHABLE);
      } else {
        worker = *now;
      }
    }
  }

  absl::Duration wait_ = absl::Minutes(5);
};

class ResumeVerb final : public WorkerVerb {
 public:
  absl::string_view name() const override { return "resume"; }
  absl::string_view summary() const override { return "Takes a drained worker back into use."; }
  void AddFlags(FlagSet* flags) override {
    connection_.AddRouterTo(flags);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_ASSIGN_OR_RETURN(const auto connection, Connect(arguments, console));
    cluster::v1::ResumeWorkerRequest request;
    request.set_worker(arguments[0]);
    cluster::v1::ResumeWorkerResponse response;
    Call call(*connection);
    GF_RETURN_IF_ERROR(Explain(
        *connection, connection->admin()->ResumeWorker(call.context(), request, &response)));
    Show(response.worker(), absl::StrCat("is ", StateName(response.worker())), console);
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<Verb> MakeDrainVerb() { return std::make_unique<DrainVerb>(); }
std::unique_ptr<Verb> MakeResumeVerb() { return std::make_unique<ResumeVerb>(); }

}  // namespace gatefold::cli
