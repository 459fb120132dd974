#pragma once

#include <deque>
#include <functional>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/platform/mutex.h"
#include "tensorflow/core/platform/types.h"

namespace sentinel {

// Operations of one step that are ready, and the order in which a session's threads begin them. The threads get a
// closure for each; in the session's order it runs its own operation, and with the oldest first whichever is the oldest
// when its turn comes. A trial changes its order within the step when live memory has grown too much.
//
// All methods may be called from several threads at once. Whoever runs the step's last closure may destroy the queue.
class ReadyQueue {
 public:
  using Work = std::function<void()>;
  using Runner = std::function<void(Work)>;

  // `runner` hands closures to the session's threads.
  ReadyQueue(Runner runner, const StepStart& start);

  void Add(Work work);

  // In a trial, most bytes by which live memory had grown since the step's begin when an operation began.
  tensorflow::uint64 growth_bytes();

 private:
  void Run(tensorflow::uint64 number);
  void NoteGrowth();

  const Runner runner_;
  const bool trial_;
  const tensorflow::uint64 trial_bytes_at_most_;
  const tensorflow::uint64 live_bytes_before_;
  tensorflow::mutex mutex_;
  bool oldest_first_;
  bool order_changed_ = false;
  tensorflow::uint64 growth_bytes_ = 0;
  // Operations by number, from `first_` on; what was taken out of the middle is empty, and the first never is.
  std::deque<Work> ready_;
  tensorflow::uint64 first_ = 0;
};

}  // namespace sentinel
