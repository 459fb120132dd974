#include "tensorflow/core/sentinel/ready_queue.h"

#include <algorithm>
#include <utility>

namespace sentinel {

std::shared_ptr<ReadyQueue> ReadyQueue::Make(Runner runner, const StepStart& start) {
  return std::shared_ptr<ReadyQueue>(new ReadyQueue(std::move(runner), start),
                                     [](ReadyQueue* queue) { queue->Release(); });
}

ReadyQueue::ReadyQueue(Runner runner, const StepStart& start)
    : runner_(std::move(runner)),
      watched_(start.watched),
      growth_bytes_at_most_(start.growth_bytes_at_most),
      live_bytes_before_(live_bytes()),
      oldest_first_(start.order == Order::OldestFirst),
      live_bytes_peak_(live_bytes_before_) {}

void ReadyQueue::Release() {
  bool last;
  {
    tensorflow::mutex_lock lock(mutex_);
    last = --uses_ == 0;
  }
  if (last) delete this;
}

void ReadyQueue::Add(Work work) {
  tensorflow::uint64 number;
  bool ended;
  {
    tensorflow::mutex_lock lock(mutex_);
    ended = ended_;
    if (!ended) {
      number = first_ + ready_.size();
      ready_.push_back(std::move(work));
      ++uses_;
    }
  }
  if (ended) {
    runner_(std::move(work));
  } else {
    runner_([this, number]() { Run(number); });
  }
}

void ReadyQueue::Run(tensorflow::uint64 number) {
  Work next;
  bool last;
  {
    tensorflow::mutex_lock lock(mutex_);
    if (watched_ && !ended_) NoteGrowth();
    // As many of our closures are left as of the step's. Another one may have taken this one's while the order was
    // oldest first.
    const bool own = !oldest_first_ && number >= first_ && ready_[number - first_] != nullptr;
    next.swap(own ? ready_[number - first_] : ready_.front());
    while (!ready_.empty() && ready_.front() == nullptr) {
      ready_.pop_front();
      ++first_;
    }
    last = --uses_ == 0;
  }
  if (last) delete this;
  next();
}

void ReadyQueue::NoteGrowth() {
  live_bytes_peak_ = std::max<tensorflow::uint64>(live_bytes_peak_, live_bytes());
  if (live_bytes_peak_ - live_bytes_before_ > growth_bytes_at_most_ && !too_much_) {
    too_much_ = true;
    oldest_first_ = !oldest_first_;
  }
}

OrderOutcome ReadyQueue::StepEnds(bool ok, bool out_of_memory, tensorflow::uint64* growth_bytes) {
  tensorflow::mutex_lock lock(mutex_);
  ended_ = true;
  *growth_bytes = live_bytes_peak_ - live_bytes_before_;
  if (out_of_memory) return OrderOutcome::OutOfMemory;
  if (too_much_) return OrderOutcome::TooMuch;
  return ok ? OrderOutcome::Kept : OrderOutcome::Nothing;
}

}  // namespace sentinel
