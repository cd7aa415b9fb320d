#pragma once

#include <string>

#include "gatefold/cluster/v1/cluster.pb.h"

namespace gatefold::cli {

// "expert", "draining": as tables and JSON write them.
std::string KindName(const cluster::v1::Worker& worker);
std::string StateName(const cluster::v1::Worker& worker);

}  // namespace gatefold::cli
