// Sharing out work among the threads of PyTorch.
//
// at::parallel_for is compiled into its caller, by the caller's OpenMP. That of the compiler at hand may be another
// than PyTorch's: it would start threads of its own, as many as it likes, and a compiler without OpenMP would start
// none. On Linux the library that PyTorch has loaded, GNU's or LLVM's, is called directly instead.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <exception>

#ifdef __linux__
extern "C" {
void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned flags) __attribute__((weak));
int omp_get_thread_num() __attribute__((weak));
int omp_get_num_threads() __attribute__((weak));
}
#endif

namespace mixdet {

// Calls function(begin, end) for parts of [0, count) that hold at least `grain`.
template <typename Function>
void parallel_for(int64_t count, int64_t grain, const Function& function) {
#ifdef __linux__
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), (count + grain - 1) / grain);
  if (parts > 1 && !at::in_parallel_region() && GOMP_parallel && omp_get_thread_num && omp_get_num_threads) {
    struct Job {
      const Function& function;
      int64_t count, part;
      std::atomic_flag failed;
      std::exception_ptr error;

      static void run(void* data) {
        Job& job = *static_cast<Job*>(data);
        const int64_t step = omp_get_num_threads() * job.part;  // there may be fewer threads than were asked for
        for (int64_t begin = omp_get_thread_num() * job.part; begin < job.count; begin += step) {
          try {
            job.function(begin, std::min(begin + job.part, job.count));
          } catch (...) {
            if (!job.failed.test_and_set()) job.error = std::current_exception();
          }
        }
      }
    };
    Job job{function, count, (count + parts - 1) / parts, ATOMIC_FLAG_INIT, nullptr};
    GOMP_parallel(&Job::run, &job, static_cast<unsigned>(parts), 0);
    if (job.error) std::rethrow_exception(job.error);
    return;
  }
  if (count > 0) function(0, count);
#else
  at::parallel_for(0, count, grain, function);
#endif
}

}  // namespace mixdet
