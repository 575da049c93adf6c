#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(_WIN32)
#include <malloc.h>
#include <process.h>
#else
#include <unistd.h>
#endif

namespace restore_native {
namespace {

constexpr int64_t ALIGNMENT = 64;  // bytes of a cache line and of the widest vector
constexpr int64_t LINE = ALIGNMENT / static_cast<int64_t>(sizeof(float));

float *allocate(int64_t floats) {
    const size_t bytes = static_cast<size_t>((floats + LINE - 1) / LINE * ALIGNMENT);
#if defined(_WIN32)
    return static_cast<float *>(_aligned_malloc(bytes, ALIGNMENT));
#else
    void *memory = nullptr;
    return posix_memalign(&memory, ALIGNMENT, bytes) ? nullptr : static_cast<float *>(memory);
#endif
}

void release(float *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

int process() {
#if defined(_WIN32)
    return _getpid();
#else
    return getpid();
#endif
}

struct Job {
    Work *work;
    const void *call;
    int64_t items;
    float *scratch;
    int64_t floats;  // of scratch for each thread
    std::atomic<int64_t> next{0};

    void run(int64_t thread) {
        for (int64_t i = next++; i < items; i = next++) work(call, i, scratch + thread * floats);
    }
};

class Pool {
  public:
    std::mutex taken;  // held by the call that the helpers work for
    const int owner = process();

    void run(Job &job, int64_t helpers) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (started_ < helpers && start_one()) {}
            wanted_ = helpers < started_ ? helpers : started_;
            joined_ = 0;
            job_ = &job;
        }
        wake_.notify_all();
        job.run(0);
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = 0;  // there is nothing left to do for those that have not come yet
        done_.wait(lock, [this] { return running_ == 0; });
    }

  private:
    bool start_one() {
        try {
            std::thread([this] { help(); }).detach();
        } catch (const std::system_error &) {
            return false;  // the system gives no more threads; those there are do the work
        }
        ++started_;
        return true;
    }

    void help() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return wanted_ > 0; });
            --wanted_;
            ++running_;
            const int64_t thread = ++joined_;
            Job *const job = job_;
            lock.unlock();
            job->run(thread);
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, done_;
    Job *job_ = nullptr;
    int64_t started_ = 0;  // helpers there are
    int64_t wanted_ = 0;   // that have still to take up this job
    int64_t joined_ = 0;   // that did
    int64_t running_ = 0;  // and are not done
};

// Never destroyed: at the end of a process helpers still wait in it.
Pool *the_pool() {
    static Pool *const pool = new (std::nothrow) Pool;
    return pool;
}

}  // namespace

bool run_in_parallel(int64_t threads, int64_t items, int64_t scratch, Work *work,
                     const void *call) {
    if (threads > items) threads = items;
    if (threads < 1) threads = 1;
    Pool *pool = threads > 1 ? the_pool() : nullptr;
    // a forked process has a copy of the pool but none of its threads
    const bool ours = pool && pool->owner == process() && pool->taken.try_lock();
    if (!ours) threads = 1;
    scratch = (scratch + LINE - 1) / LINE * LINE;
    float *memory = allocate(scratch * threads);
    if (memory) {
        Job job{work, call, items, memory, scratch, {}};
        if (ours) {
            pool->run(job, threads - 1);
        } else {
            job.run(0);
        }
        release(memory);
    }
    if (ours) pool->taken.unlock();
    return memory != nullptr;
}

}  // namespace restore_native
