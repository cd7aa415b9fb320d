#include "cli/command.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/error_report.h"

namespace gatefold::cli {
namespace {

void PrintOverview(const std::vector<std::unique_ptr<Verb>>& verbs, std::ostream& out) {
  out << "gatefold: serves mixtures of experts, in one process or on many.\n\n"
         "Usage: gatefold VERB [flags] [arguments]\n\n";
  for (const auto& verb : verbs) {
    out << absl::StrFormat("  %-11s %s\n", verb->name(), verb->summary());
  }
  out << "\n`gatefold VERB --help` tells the flags of one. Flags may come from the environment:\n"
         "GATEFOLD_MAX_TOKENS=8 stands for --max-tokens 8, and the command line beats it.\n"
         "Exit codes: 0, 1 failed, 2 wrong usage, 130 interrupted.\n";
}

void PrintHelp(const Verb& verb, const FlagSet& flags, std::ostream& out) {
  out << "Usage: gatefold " << verb.name() << " [flags]" << (verb.arguments().empty() ? "" : " ")
      << verb.arguments() << "\n\n"
      << verb.summary() << "\n";
  if (!verb.details().empty()) out << "\n" << verb.details();
  const std::string help = flags.Help();
  if (!help.empty()) out << "\n" << help;
}

Verb* Find(const std::vector<std::unique_ptr<Verb>>& verbs, absl::string_view name) {
  for (const auto& verb : verbs) {
    if (verb->name() == name) return verb.get();
  }
  return nullptr;
}

std::string Names(const std::vector<std::unique_ptr<Verb>>& verbs) {
  return absl::StrJoin(verbs, ", ", [](std::string* out, const std::unique_ptr<Verb>& verb) {
    absl::StrAppend(out, verb->name());
  });
}

int Report(absl::string_view verb, const absl::Status& status, Console* console) {
  if (status.ok()) return kExitOk;
  if (console->interrupts != nullptr && console->interrupts->raised()) {
    console->err << "\ninterrupted\n";
    return kExitInterrupted;
  }
  console->out.flush();
  console->err << DescribeError(verb, status);
  return IsUsageError(status) ? kExitUsage : kExitFailed;
}

// Of what has written its output: whether that could be written.
int Finish(absl::string_view verb, absl::Status status, Console* console) {
  console->out.flush();
  if (status.ok() && !console->out) {
    status = absl::DataLossError("the output could not be written");
  }
  return Report(verb, status, console);
}

int RunVerb(Verb* verb, const std::vector<std::string>& arguments, const Environment& environment,
            Console* console) {
  FlagSet flags;
  verb->AddFlags(&flags);
  const absl::StatusOr<std::vector<std::string>> rest = flags.Parse(arguments, environment);
  if (!rest.ok()) return Report(verb->name(), rest.status(), console);
  if (flags.help_wanted()) {
    PrintHelp(*verb, flags, console->out);
    return Finish(verb->name(), absl::OkStatus(), console);
  }
  return Finish(verb->name(), verb->Run(flags, *rest, console), console);
}

}  // namespace

int RunCommand(const std::vector<std::string>& arguments, const Environment& environment,
               Console* console) {
  const std::vector<std::unique_ptr<Verb>> verbs = MakeVerbs();
  if (arguments.empty()) {
    PrintOverview(verbs, console->err);
    return kExitUsage;
  }
  std::string name = arguments[0];
  std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  if (name == "help" && !rest.empty()) {  // `help VERB` is `VERB --help`
    name = rest[0];
    rest = {"--help"};
  }
  if (name == "help" || name == "--help" || name == "-h") {
    PrintOverview(verbs, console->out);
    return Finish("", absl::OkStatus(), console);
  }
  if (name == "--version") name = "version";
  Verb* verb = Find(verbs, name);
  if (verb == nullptr) {
    return Report(
        "", UsageError(absl::StrCat("there is no verb \"", name, "\"; verbs are ", Names(verbs))),
        console);
  }
  return RunVerb(verb, rest, environment, console);
}

}  // namespace gatefold::cli
