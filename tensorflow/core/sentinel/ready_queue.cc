#include "tensorflow/core/sentinel/ready_queue.h"

#include <algorithm>
#include <utility>

namespace sentinel {

ReadyQueue::ReadyQueue(Runner runner, const StepStart& start)
    : runner_(std::move(runner)),
      trial_(start.trial),
      trial_bytes_at_most_(start.trial_bytes_at_most),
      live_bytes_before_(trial_ ? live_bytes() : 0),
      oldest_first_(start.order == Order::OldestFirst) {}

void ReadyQueue::Add(Work work) {
  tensorflow::uint64 number;
  {
    tensorflow::mutex_lock lock(mutex_);
    number = first_ + ready_.size();
    ready_.push_back(std::move(work));
  }
  runner_([this, number]() { Run(number); });
}

void ReadyQueue::Run(tensorflow::uint64 number) {
  Work next;
  {
    tensorflow::mutex_lock lock(mutex_);
    if (trial_) NoteGrowth();
    // There are as many closures left as operations. Another closure may have taken this one's while the order was
    // oldest first.
    const bool own = !oldest_first_ && number >= first_ && ready_[number - first_] != nullptr;
    next.swap(own ? ready_[number - first_] : ready_.front());
    while (!ready_.empty() && ready_.front() == nullptr) {
      ready_.pop_front();
      ++first_;
    }
  }
  next();  // may destroy this
}

void ReadyQueue::NoteGrowth() {
  const tensorflow::uint64 live = live_bytes();
  growth_bytes_ = std::max(growth_bytes_, live - std::min(live, live_bytes_before_));
  if (growth_bytes_ > trial_bytes_at_most_ && !order_changed_) {
    order_changed_ = true;
    oldest_first_ = !oldest_first_;
  }
}

tensorflow::uint64 ReadyQueue::growth_bytes() {
  tensorflow::mutex_lock lock(mutex_);
  return growth_bytes_;
}

}  // namespace sentinel
