// The ops for any CPU: vectors of four floats, which are SSE2 or NEON registers where there are such.
#define LANES 4
#define ISA portable
#include "operations.h"
#include "attention_gradients.h"
#include "depthwise.h"
#include "dictionary.h"
#include "groups.h"

namespace restore_native {
static const Operations operations{portable::PANEL, portable::pack, portable::digest, portable::branch,
                                   portable::attention, portable::tokens, portable::groups, portable::dictionary,
                                   portable::refinement, portable::depthwise,
                                   portable::attention_gradients};
const Operations *const PORTABLE = &operations;
}  // namespace restore_native
