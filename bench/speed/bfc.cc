// Replays allocations and releases with TensorFlow's own best-fit allocator: `bfc THREADS ROUNDS`, with what
// `replay events` prints on standard input. Prints the CPU nanoseconds that a pair takes in a thread.
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "tensorflow/core/common_runtime/bfc_allocator.h"
#include "tensorflow/core/common_runtime/pool_allocator.h"

namespace {

using tensorflow::Allocator;

constexpr int kSettlingRounds = 3;
constexpr size_t kAlignBytes = 64;
constexpr size_t kLimitBytes = size_t{64} << 30;
constexpr size_t kRelease = std::numeric_limits<size_t>::max();

struct Event {
  size_t buffer;
  size_t bytes;  // kRelease for a release
};

double CpuNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

double Replay(const std::vector<Event>& events, size_t buffers, int rounds, Allocator* allocator) {
  std::vector<void*> blocks(buffers, nullptr);
  double began = 0;
  for (int round = -kSettlingRounds; round < rounds; ++round) {
    if (round == 0) began = CpuNanoseconds();
    for (const Event& event : events) {
      void*& block = blocks[event.buffer];
      if (event.bytes == kRelease) {
        allocator->DeallocateRaw(block);
      } else {
        block = allocator->AllocateRaw(kAlignBytes, event.bytes);
        if (block == nullptr) abort();
      }
    }
  }
  return CpuNanoseconds() - began;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: bfc THREADS ROUNDS <EVENTS\n"), 2;
  const int threads = atoi(argv[1]), rounds = atoi(argv[2]);
  std::vector<Event> events;
  size_t buffers = 0, pairs = 0;
  char kind;
  Event event;
  while (scanf(" %c %zu", &kind, &event.buffer) == 2) {
    if (kind == 'f') {
      event.bytes = kRelease;
    } else if (kind != 'a' || scanf("%zu", &event.bytes) != 1) {
      return fprintf(stderr, "no event: %c %zu\n", kind, event.buffer), 2;
    }
    pairs += event.bytes == kRelease;
    if (event.buffer >= buffers) buffers = event.buffer + 1;
    events.push_back(event);
  }
  tensorflow::BFCAllocator allocator(new tensorflow::BasicCPUAllocator(tensorflow::port::kNUMANoAffinity, {}, {}),
                                     kLimitBytes, /*allow_growth=*/true, "bench");
  std::vector<double> took(threads);
  std::vector<std::thread> running;
  for (double& own : took) {
    running.emplace_back([&]() { own = Replay(events, buffers, rounds, &allocator); });
  }
  double sum = 0;
  for (int i = 0; i < threads; ++i) {
    running[i].join();
    sum += took[i];
  }
  printf("%.2f\n", sum / threads / rounds / pairs);
}
