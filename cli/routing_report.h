#pragma once

#include <ostream>

#include "cli/routing_view.h"

namespace gatefold::cli {

// Who answered how much: a table of the shards and one of the experts.
void PrintRoutingShares(const RoutingShares& shares, std::ostream& out);

}  // namespace gatefold::cli
