// The ops for any CPU: vectors of four floats, which are SSE2 or NEON registers where there are such.
#define LANES 4
#define ISA portable
#include "exact_operations.h"

namespace restore_native {
const Operations *const PORTABLE = &operations;
}  // namespace restore_native
