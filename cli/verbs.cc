#include "cli/verbs.h"

#include "cli/command.h"

namespace gatefold::cli {

std::vector<std::unique_ptr<Verb>> MakeVerbs() {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(MakeServeVerb());
  verbs.push_back(MakeGenerateVerb());
  verbs.push_back(MakeChatVerb());
  verbs.push_back(MakeScoreVerb());
  verbs.push_back(MakeTokenizeVerb());
  verbs.push_back(MakeDetokenizeVerb());
  verbs.push_back(MakeGetVerb());
  verbs.push_back(MakeTopVerb());
  verbs.push_back(MakeTraceVerb());
  verbs.push_back(MakeDrainVerb());
  verbs.push_back(MakeResumeVerb());
  verbs.push_back(MakeBenchVerb());
  verbs.push_back(MakeEvalVerb());
  verbs.push_back(MakeCompareVerb());
  verbs.push_back(MakeInspectVerb());
  verbs.push_back(MakePlanVerb());
  verbs.push_back(MakeKeysVerb());
  verbs.push_back(MakeVersionVerb());
  return verbs;
}

}  // namespace gatefold::cli
