#pragma once

#include <string>

namespace gatefold {

// With '?' for each byte that is no part of valid UTF-8. For text from elsewhere: a protobuf string
// that is not valid makes its whole message unreadable at the other end, and a line of JSON, too.
std::string ValidUtf8(std::string text);

}  // namespace gatefold
