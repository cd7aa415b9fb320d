#pragma once

namespace gatefold {

// From now on the calling thread gets what cores have left when others compute (nice 10). For
// threads that load and send weights. There is no way back without privileges.
void StepBackForOthers();

}  // namespace gatefold
