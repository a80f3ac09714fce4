// How many descriptors this process may have open: as many as it is allowed to ask for. Thousands of connections need
// them, and the usual soft limit is 1024. Children inherit it.
//
// Threading: any thread. Errors: none; what cannot be raised stays.
#pragma once

namespace baton {

void RaiseDescriptorLimit();

}  // namespace baton
