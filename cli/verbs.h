#pragma once

#include <memory>

#include "cli/verb.h"

namespace gatefold::cli {

std::unique_ptr<Verb> MakeServeVerb();
std::unique_ptr<Verb> MakeGenerateVerb();
std::unique_ptr<Verb> MakeChatVerb();
std::unique_ptr<Verb> MakeScoreVerb();
std::unique_ptr<Verb> MakeTokenizeVerb();
std::unique_ptr<Verb> MakeDetokenizeVerb();
std::unique_ptr<Verb> MakeGetVerb();
std::unique_ptr<Verb> MakeBenchVerb();
std::unique_ptr<Verb> MakeEvalVerb();
std::unique_ptr<Verb> MakeCompareVerb();
std::unique_ptr<Verb> MakeInspectVerb();
std::unique_ptr<Verb> MakePlanVerb();
std::unique_ptr<Verb> MakeTopVerb();
std::unique_ptr<Verb> MakeTraceVerb();
std::unique_ptr<Verb> MakeDrainVerb();
std::unique_ptr<Verb> MakeResumeVerb();
std::unique_ptr<Verb> MakeKeysVerb();
std::unique_ptr<Verb> MakeVersionVerb();

}  // namespace gatefold::cli
