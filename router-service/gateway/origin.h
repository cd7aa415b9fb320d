#pragma once

#include <memory>
#include <string>
#include <utility>

#include "router-service/gateway/caller.h"

namespace gatefold {

// Where a request comes from.
struct Origin {
  Origin() = default;
  Origin(std::shared_ptr<Caller> caller, std::string traceparent = "")  // NOLINT: a caller is one
      : caller(std::move(caller)), traceparent(std::move(traceparent)) {}

  const std::string& caller_name() const {
    static const auto* const nobody = new std::string;
    return caller == nullptr ? *nobody : caller->name();
  }

  std::shared_ptr<Caller> caller;  // whose limits it counts against; null: nobody's
  std::string traceparent;         // W3C trace context, valid; empty if none
};

}  // namespace gatefold
