#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/top/top_view.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

constexpr char kClearScreen[] = "\x1b[H\x1b[2J";

class TopVerb final : public Verb {
 public:
  absl::string_view name() const override { return "top"; }
  absl::string_view summary() const override {
    return "Shows what a cluster is doing: tokens/s, latencies, queue, KV cache, shards.";
  }
  absl::string_view details() const override {
    return "Redraws on a terminal until Ctrl-C, and prints a line every interval elsewhere.\n"
           "Requests, latencies and rows are those of the router that is asked; how busy workers\n"
           "are is over all routers.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddRouterTo(flags);
    flags->Add("interval", "DURATION", "between two looks (default 2s)", &interval_);
    flags->AddSwitch("once", "one table over one interval, and end", &once_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    if (!arguments.empty()) return UsageError("top takes flags only");
    if (connection_.router.empty()) return UsageError("say which cluster: --router HOST:PORT");
    if (interval_ < absl::Milliseconds(100) || interval_ > absl::Hours(1)) {
      return UsageError(absl::StrCat("--interval is ", absl::FormatDuration(interval_),
                                     ", must be within 100ms and 1h"));
    }
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    GF_ASSIGN_OR_RETURN(TopSample before, Look(connection.get()));
    while (console->interrupts->Pause(interval_)) {
      absl::StatusOr<TopSample> after = Look(connection.get());
      if (!after.ok() && console->interrupts->raised()) break;
      if (!after.ok()) return after.status();
      Show(CompareSamples(before, *after), console);
      // Without an end of its own it would go on for nobody.
      if (once_ || !console->out) return absl::OkStatus();
      before = *std::move(after);
    }
    // That is how it ends, unless one look was wanted.
    return once_ ? absl::CancelledError("interrupted") : absl::OkStatus();
  }

 private:
  static absl::StatusOr<TopSample> Look(Connection* connection) {
    TopSample sample;
    {
      Call call(*connection);
      GF_RETURN_IF_ERROR(connection->ToStatus(
          connection->cluster()->GetServingStats(call.context(), {}, &sample.stats)));
    }
    Call call(*connection);
    GF_RETURN_IF_ERROR(connection->ToStatus(
        connection->cluster()->GetCluster(call.context(), {}, &sample.cluster)));
    sample.at = absl::Now();
    return sample;
  }

  void Show(const TopView& view, Console* console) const {
    if (output_.json()) {
      PrintJson(TopJson(view), console->out);
    } else if (once_ || console->out_is_terminal) {
      if (!once_) console->out << kClearScreen;
      PrintTopTable(view, console->out);
    } else {
      PrintTopLine(view, console->out);
    }
    console->out.flush();
  }

  ConnectionFlags connection_;
  absl::Duration interval_ = absl::Seconds(2);
  bool once_ = false;
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakeTopVerb() { return std::make_unique<TopVerb>(); }

}  // namespace gatefold::cli
