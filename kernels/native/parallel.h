// Work in several threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace restore_native {

// What is done for one item, with memory that no other thread uses meanwhile.
typedef void Work(const void *call, int64_t item, float *scratch);

// Run `work` for the items 0 to items - 1, in at most so many threads, the caller's among them.
//
// Helpers wait for work in one pool for the process. A call that finds it taken by another Python
// thread, and every call in a process forked from one that has a pool, runs in its own thread
// alone.
//
// Returns false, with nothing done, where there is no memory for `scratch` floats for each thread.
bool run_in_parallel(int64_t threads, int64_t items, int64_t scratch, Work *work, const void *call);

}  // namespace restore_native
