#pragma once

#include "absl/status/statusor.h"
#include "gatefold/model/config_reader.h"
#include "gatefold/model/model_config.h"

namespace gatefold {

// The rotary embedding that `config` (the object of config.json) asks for, in its old spelling
// (rope_theta and rope_scaling) or its new one (rope_parameters). Part of ParseModelConfig.
absl::StatusOr<RopeConfig> ReadRopeConfig(ConfigReader* config, double default_theta,
                                          int max_positions);

}  // namespace gatefold
