#pragma once

#include "absl/strings/string_view.h"

namespace gatefold {

// `text` if it is a traceparent as W3C's Trace Context defines it
// (00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01), of version 00 or one that is not known
// yet; else "": a value that is none is passed on to nobody, and is no error.
absl::string_view ValidTraceparent(absl::string_view text);

}  // namespace gatefold
