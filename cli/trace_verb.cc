#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "cli/answer.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/routing_report.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

using cluster::v1::GenerationTrace;

// Phases that it did not come to, or of which nobody told, have no time: not 0.
struct Phase {
  const char* name;
  std::optional<double> ms;
};
std::vector<Phase> Phases(const GenerationTrace& trace) {
  const inference::v1::Timings& timings = trace.timings();
  const auto ms = [](bool known, const google::protobuf::Duration& span) {
    return known ? std::make_optional(1e3 * Seconds(span)) : std::nullopt;
  };
  return {{"queue", ms(timings.has_queue(), timings.queue())},
          {"prefill", ms(timings.has_prefill(), timings.prefill())},
          {"decode", ms(timings.has_decode(), timings.decode())}};
}

std::string StatusName(const GenerationTrace& trace) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(trace.status().code()));
}

std::string Arrival(const GenerationTrace& trace) {
  const absl::Time time =
      absl::FromUnixSeconds(trace.arrival().seconds()) + absl::Nanoseconds(trace.arrival().nanos());
  return absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone());
}

// Of prompt and output together; empty if it was not asked for.
absl::StatusOr<RoutingShares> SharesOf(const GenerationTrace& trace) {
  RoutingShares shares;
  GF_RETURN_IF_ERROR(shares.Add(trace.prompt_routing()));
  for (const auto& candidate : trace.candidates()) {
    GF_RETURN_IF_ERROR(shares.Add(candidate.routing()));
  }
  return shares;
}

Json ToJson(const GenerationTrace& trace, const RoutingShares& shares) {
  Json candidates = Json::array();
  for (const auto& candidate : trace.candidates()) {
    candidates.push_back({{"output_tokens", candidate.output_tokens()},
                          {"finish_reason", FinishReasonName(candidate.finish_reason())}});
  }
  Json json = {{"request_id", trace.request_id()},
               {"caller", trace.caller()},
               {"arrival", Arrival(trace)},
               {"status", StatusName(trace)},
               {"message", trace.status().message()},
               {"usage", UsageJson(trace.usage())},
               {"end_to_end_ms", 1e3 * Seconds(trace.end_to_end())},
               {"degraded_tokens", trace.degraded_tokens()},
               {"topology_version", trace.topology_version()},
               {"candidates", std::move(candidates)},
               {"routing_dropped", trace.routing_dropped()}};
  for (const Phase& phase : Phases(trace)) {
    json[absl::StrCat(phase.name, "_ms")] = phase.ms.has_value() ? Json(*phase.ms) : Json();
  }
  if (shares.total > 0) json["trace"] = RoutingSharesJson(shares);
  return json;
}

void Print(const GenerationTrace& trace, const RoutingShares& shares, std::ostream& out) {
  out << trace.request_id() << "  " << Arrival(trace) << "  " << StatusName(trace);
  if (!trace.status().message().empty()) out << ": " << trace.status().message();
  out << "\n";
  out << absl::StreamFormat("%u prompt tokens (%u cached), %u output tokens",
                            trace.usage().prompt_tokens(), trace.usage().cached_tokens(),
                            trace.usage().output_tokens());
  for (const auto& candidate : trace.candidates()) {
    const bool finished = candidate.finish_reason() != inference::v1::FINISH_REASON_UNSPECIFIED;
    out << absl::StreamFormat(", %s after %u",
                              finished ? FinishReasonName(candidate.finish_reason()) : "unfinished",
                              candidate.output_tokens());
  }
  out << "\n";
  if (trace.degraded_tokens() > 0) {
    out << trace.degraded_tokens() << " tokens were computed without some of their experts\n";
  }
  out << absl::StreamFormat("%.1f ms in all", 1e3 * Seconds(trace.end_to_end()));
  for (const Phase& phase : Phases(trace)) {
    if (phase.ms.has_value()) out << absl::StreamFormat(", %s %.1f", phase.name, *phase.ms);
  }
  out << "\n";
  if (shares.total > 0) {
    PrintRoutingShares(shares, out);
  } else {
    out << (trace.routing_dropped() ? "Its routes were too many to be kept.\n"
                                    : "Its routes were not asked for (generate --trace).\n");
  }
}

class TraceVerb final : public Verb {
 public:
  absl::string_view name() const override { return "trace"; }
  absl::string_view arguments() const override { return "REQUEST_ID"; }
  absl::string_view summary() const override {
    return "How a generation went that has ended: its time by phase, its experts and shards.";
  }
  absl::string_view details() const override {
    return "A router keeps the last thousand or so that it served. Give an id of your own with\n"
           "`gatefold generate --request-id ID`, or take one from the log or from the stream.\n";
  }
  void AddFlags(FlagSet* flags) override {
    connection_.AddRouterTo(flags);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    if (arguments.size() != 1 || arguments[0].empty()) return UsageError("name one request id");
    if (connection_.router.empty()) {
      return UsageError("say which router served it: --router HOST:PORT");
    }
    GF_ASSIGN_OR_RETURN(const auto connection, Connection::Open(connection_, console->interrupts));
    cluster::v1::GetGenerationTraceRequest request;
    request.set_request_id(arguments[0]);
    cluster::v1::GetGenerationTraceResponse response;
    Call call(*connection);
    GF_RETURN_IF_ERROR(connection->ToStatus(
        connection->cluster()->GetGenerationTrace(call.context(), request, &response)));
    GF_ASSIGN_OR_RETURN(const RoutingShares shares, SharesOf(response.trace()));
    if (output_.json()) {
      PrintJson(ToJson(response.trace(), shares), console->out);
    } else {
      Print(response.trace(), shares, console->out);
    }
    return absl::OkStatus();
  }

 private:
  ConnectionFlags connection_;
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakeTraceVerb() { return std::make_unique<TraceVerb>(); }

}  // namespace gatefold::cli
