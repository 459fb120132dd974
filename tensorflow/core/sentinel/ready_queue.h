#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/platform/mutex.h"
#include "tensorflow/core/platform/types.h"

namespace sentinel {

// Closures of one step that are ready, and the order in which a session's threads run them: operations with what they
// make ready and can run at once, mostly. The threads get one closure of ours for each; in the session's order it runs
// its own, and with the oldest first whichever is the oldest when its turn comes. The order changes within the step
// when live memory has grown too much; it is looked at whenever a closure begins.
//
// All methods may be called from several threads at once. A queue lives as long as somebody holds it or a closure of it
// waits: input pipelines copy the runner of the step that made them. After the step it is no queue any more.
class ReadyQueue {
 public:
  using Work = std::function<void()>;
  using Runner = std::function<void(Work)>;

  // `runner` hands closures to the session's threads.
  static std::shared_ptr<ReadyQueue> Make(Runner runner, const StepStart& start);

  void Add(Work work);

  // From now on, closures go to the threads as they are. Returns what became of the order, and in `growth_bytes` by how
  // much live memory had grown at most since the step's begin.
  OrderOutcome StepEnds(bool ok, bool out_of_memory, tensorflow::uint64* growth_bytes);

 private:
  ReadyQueue(Runner runner, const StepStart& start);
  ~ReadyQueue() = default;

  void Run(tensorflow::uint64 number);
  void NoteGrowth();
  void Release();

  const Runner runner_;
  const bool watched_;
  const tensorflow::uint64 growth_bytes_at_most_;
  const tensorflow::uint64 live_bytes_before_;
  tensorflow::mutex mutex_;
  bool oldest_first_;
  bool too_much_ = false;
  bool ended_ = false;
  tensorflow::uint64 live_bytes_peak_;
  // Closures that wait, and one for all who hold the queue. A closure of ours is two words, which need no allocation.
  tensorflow::uint64 uses_ = 1;
  // By number, from `first_` on; what was taken out of the middle is empty, and the first never is.
  std::deque<Work> ready_;
  tensorflow::uint64 first_ = 0;
};

}  // namespace sentinel
