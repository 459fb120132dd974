#define EIGEN_USE_THREADS
#include "tensorflow/core/sentinel/executor.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/common_runtime/executor.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/graph/graph.h"
#include "tensorflow/core/lib/hash/hash.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/sentinel/ready_queue.h"

namespace sentinel {
namespace {

using tensorflow::Executor;
using tensorflow::Graph;
using tensorflow::LocalExecutorParams;
using tensorflow::OpKernel;
using tensorflow::Status;

// Lets one operation of a profiled step run at a time. An operation that waits for another one would wait forever, so
// whoever has waited for it for long takes its place, and it goes on beside. Threads that outlive the step, such as
// those of an input pipeline that it started, find the gate open.
class SerialGate {
 public:
  void Pass(const std::function<void()>& work) {
    // Threads run a closure at once, inside the one that made it ready, when their queue is full or when the caller's
    // thread is all there is. It would wait for itself.
    static thread_local bool inside = false;
    if (inside) {
      work();
      return;
    }
    const tensorflow::uint64 own = Enter();
    inside = true;
    work();
    inside = false;
    Leave(own);
  }

  void OpenForGood() {
    tensorflow::mutex_lock lock(mutex_);
    open_ = true;
    free_.notify_all();
  }

 private:
  // Returns the caller's number.
  tensorflow::uint64 Enter() {
    tensorflow::mutex_lock lock(mutex_);
    // In the order of arrival: a thread that leaves must not come in again before one that waits, or the recorded order
    // would be a matter of luck, and with it the peak.
    const tensorflow::uint64 own = ++arrivals_;
    waiting_.push_back(own);
    while (!open_ && !MayEnter(own)) tensorflow::WaitForMilliseconds(&lock, &free_, kPatienceMs);
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), own));
    holder_ = own;
    held_since_micros_ = tensorflow::Env::Default()->NowMicros();
    return own;
  }

  bool MayEnter(tensorflow::uint64 number) const {
    if (waiting_.front() != number) return false;
    return holder_ == 0 || tensorflow::Env::Default()->NowMicros() - held_since_micros_ >= 1000 * kPatienceMs;
  }

  void Leave(tensorflow::uint64 number) {
    tensorflow::mutex_lock lock(mutex_);
    if (holder_ != number) return;
    holder_ = 0;
    free_.notify_all();
  }

  static constexpr tensorflow::int64 kPatienceMs = 1000;
  tensorflow::mutex mutex_;
  tensorflow::condition_variable free_;
  std::deque<tensorflow::uint64> waiting_;
  tensorflow::uint64 arrivals_ = 0;
  tensorflow::uint64 holder_ = 0;  // 0 for nobody
  tensorflow::uint64 held_since_micros_ = 0;
  bool open_ = false;
};

// Steps with inputs of the same types and shapes have the same signature.
uint64_t SignatureOf(const tensorflow::CallFrameInterface* frame) {
  uint64_t signature = 0;
  if (frame == nullptr) return signature;
  for (size_t i = 0; i < frame->num_args(); ++i) {
    tensorflow::Tensor argument;
    if (!frame->GetArg(static_cast<int>(i), &argument).ok()) continue;
    signature = tensorflow::Hash64Combine(signature, static_cast<uint64_t>(argument.dtype()));
    for (int d = 0; d < argument.dims(); ++d) {
      signature = tensorflow::Hash64Combine(signature, static_cast<uint64_t>(argument.dim_size(d)));
    }
  }
  return signature;
}

class SentinelExecutor : public Executor {
 public:
  SentinelExecutor(Executor* inner, uint64_t graph) : inner_(inner), graph_(graph) {}

  // Its kernels go first, then the graph's plans.
  ~SentinelExecutor() override {
    inner_.reset();
    graph_closes(graph_);
  }

  void RunAsync(const Args& args, DoneCallback done) override {
    const uint64_t signature = SignatureOf(args.call_frame);
    const StepStart start = step_begins(graph_, args.step_id, signature);
    if (!start.stop.empty()) {
      done(tensorflow::errors::FailedPrecondition(tensorflow::string(start.stop)));
      return;
    }
    Args own = args;
    std::shared_ptr<SerialGate> gate;
    if (start.serial) {
      gate = std::make_shared<SerialGate>();
      Args::Runner runner = args.runner;
      own.runner = [gate, runner](Args::Closure work) { runner([gate, work]() { gate->Pass(work); }); };
    }
    std::shared_ptr<ReadyQueue> queue;
    if (start.watched) {
      // Outside the gate, so that whoever is let in takes what is next by then.
      queue = ReadyQueue::Make(own.runner, start);
      own.runner = [queue](Args::Closure work) { queue->Add(std::move(work)); };
    }
    const uint32_t tag = start.tag;
    const bool ordered = start.ordered;
    const bool trial = start.trial;
    const uint64_t graph = graph_;
    inner_->RunAsync(own, [tag, ordered, trial, graph, signature, gate, queue, done](const Status& status) {
      if (gate != nullptr) gate->OpenForGood();
      if (ordered) {
        tensorflow::uint64 growth = 0;
        const bool out_of_memory = status.code() == tensorflow::error::RESOURCE_EXHAUSTED;
        OrderOutcome outcome =
            queue == nullptr ? OrderOutcome::Kept : queue->StepEnds(status.ok(), out_of_memory, &growth);
        // The kernel's profiler wants pages for every tensor, which other steps do not.
        if (gate != nullptr && outcome == OrderOutcome::TooMuch) outcome = OrderOutcome::Nothing;
        ordered_step_ends(graph, signature, trial, outcome, growth);
      }
      if (tag != 0) step_ends(tag, status.ok());
      done(status);
    });
  }

 private:
  std::unique_ptr<Executor> inner_;
  const uint64_t graph_;
};

bool HoldsThread(const tensorflow::string& type) {
  return type.find("Stage") != type.npos || type.find("Unstage") != type.npos;
}

// Operations of staging areas hold a thread until another one has run, which may have got ready later.
bool HoldsThreads(const Graph& graph) {
  for (const tensorflow::Node* node : graph.op_nodes()) {
    if (HoldsThread(node->type_string())) return true;
  }
  // Any of the session's functions may be called from here.
  for (const tensorflow::string& name : graph.flib_def().ListFunctionNames()) {
    const tensorflow::FunctionDef* function = graph.flib_def().Find(name);
    if (function == nullptr) continue;
    for (const tensorflow::NodeDef& node : function->node_def()) {
      if (HoldsThread(node.op())) return true;
    }
  }
  return false;
}

uint64_t Announce(const Graph& graph) {
  rust::Vec<rust::String> names;
  names.reserve(graph.num_node_ids());
  for (int id = 0; id < graph.num_node_ids(); ++id) {
    const tensorflow::Node* node = graph.FindNodeId(id);
    names.push_back(node == nullptr ? rust::String() : rust::String::lossy(node->name()));
  }
  std::vector<Edge> edges;
  edges.reserve(graph.num_edges());
  for (const tensorflow::Edge* edge : graph.edges()) {
    edges.push_back({static_cast<uint32_t>(edge->src()->id()), static_cast<uint32_t>(edge->dst()->id())});
  }
  return graph_opens(names, {edges.data(), edges.size()});
}

class SentinelExecutorFactory : public tensorflow::ExecutorFactory {
 public:
  Status NewExecutor(const LocalExecutorParams& params, std::unique_ptr<const Graph> graph,
                     std::unique_ptr<Executor>* executor) override {
    LocalExecutorParams own = params;
    const auto create = params.create_kernel;
    const auto remove = params.delete_kernel;
    own.create_kernel = [create](const tensorflow::NodeDef& node, OpKernel** kernel) {
      TF_RETURN_IF_ERROR(create(node, kernel));
      kernel_held(reinterpret_cast<size_t>(*kernel), {node.name().data(), node.name().size()},
                  {node.op().data(), node.op().size()});
      return Status::OK();
    };
    own.delete_kernel = [remove](OpKernel* kernel) {
      kernel_released(reinterpret_cast<size_t>(kernel));
      remove(kernel);
    };
    const uint64_t number = Announce(*graph);
    if (HoldsThreads(*graph)) order_is_the_sessions(number);
    Executor* inner = nullptr;
    const Status status = tensorflow::NewLocalExecutor(own, std::move(graph), &inner);
    if (!status.ok()) {
      graph_closes(number);
      return status;
    }
    executor->reset(new SentinelExecutor(inner, number));
    return Status::OK();
  }
};

}  // namespace

tensorflow::ExecutorFactory* NewExecutorFactory() { return new SentinelExecutorFactory; }

}  // namespace sentinel
