// The table of a unit that computes all ops, which are in float32.
#pragma once

#include "operations.h"
#include "attention_gradients.h"
#include "correlation.h"
#include "depthwise.h"
#include "dictionary.h"
#include "gated.h"
#include "groups.h"
#include "similarity.h"

namespace restore_native {
static const Operations operations{
    ISA::PANEL, ISA::pack, ISA::digest, ISA::branch, ISA::attention,
    ISA::tokens, ISA::gated, ISA::correlation, ISA::conv_mlp,
    ISA::groups, ISA::dictionary, ISA::refinement, ISA::depthwise,
    ISA::attention_gradients,
    ISA::similarity,
};
}  // namespace restore_native
