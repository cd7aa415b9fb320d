#pragma once

#include <string>

namespace gatefold {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Brings `text`, valid UTF-8, into a Unicode normal form, as Unicode 9.0 defines it: that is what
// the reference does, and some marks that came later would otherwise be reordered.
void Normalize(NormalForm form, std::string* text);

}  // namespace gatefold
