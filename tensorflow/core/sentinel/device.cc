#define EIGEN_USE_THREADS
#include "tensorflow/core/sentinel/device.h"

#include <memory>
#include <utility>
#include <vector>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/common_runtime/eigen_thread_pool.h"
#include "tensorflow/core/common_runtime/process_state.h"
#include "tensorflow/core/common_runtime/threadpool_device.h"
#include "tensorflow/core/platform/cpu_info.h"
#include "tensorflow/core/platform/numa.h"
#include "tensorflow/core/public/session_options.h"
#include "tensorflow/core/sentinel/allocator.h"
#include "tensorflow/core/sentinel/touches.h"

namespace sentinel {

const char kExecutorType[] = "SENTINEL";

namespace {

using tensorflow::AsyncOpKernel;
using tensorflow::OpKernel;
using tensorflow::OpKernelContext;
using tensorflow::SessionOptions;
using tensorflow::Status;
using tensorflow::string;

constexpr tensorflow::Bytes kMemoryLimit(256 << 20);  // what stock TensorFlow states for every CPU device

// Worker threads work for the operation that scheduled them.
class ContextPool : public tensorflow::EigenThreadPoolWrapper {
 public:
  explicit ContextPool(tensorflow::thread::ThreadPool* pool) : EigenThreadPoolWrapper(pool) {}

  void Schedule(std::function<void()> work) override {
    const Context scheduled = context();
    EigenThreadPoolWrapper::Schedule([work, scheduled]() {
      const Context before = swap_context(scheduled);
      work();
      swap_context(before);
    });
  }
};

size_t AddressOf(const OpKernel* kernel) { return reinterpret_cast<size_t>(kernel); }

// The number of a kernel that the thread has not met.
uint32_t Meet(const OpKernel* kernel) {
  const string& name = kernel->name();
  const string& type = kernel->type_string();
  const uint32_t number = kernel_met(AddressOf(kernel), {name.data(), name.size()}, {type.data(), type.size()});
  NoteKind(*kernel, number);
  return number;
}

uint32_t NumberOf(const OpKernel* kernel) {
  const uint32_t cached = kernel_cached(AddressOf(kernel));
  return cached != UINT32_MAX ? cached : Meet(kernel);
}

class SentinelDevice : public tensorflow::ThreadPoolDevice {
 public:
  SentinelDevice(const SessionOptions& options, const string& name, const tensorflow::DeviceLocality& locality)
      : ThreadPoolDevice(options, name, kMemoryLimit, locality, DeviceAllocator()),
        pool_(tensorflow_cpu_worker_threads()->workers),
        eigen_(&pool_, tensorflow_cpu_worker_threads()->num_threads, EigenAllocator()) {
    set_eigen_cpu_device(&eigen_);
  }

  // Kernels made outside our executors die with the device, and their addresses may be used again.
  ~SentinelDevice() override { kernels_changed(); }

  tensorflow::Allocator* GetAllocator(tensorflow::AllocatorAttributes attributes) override { return DeviceAllocator(); }

  void Compute(OpKernel* kernel, OpKernelContext* context) override {
    Scope scope;
    switch (op_begins_known(AddressOf(kernel), context->step_id(), scope)) {
      case Begun::Yes:
        kernel->Compute(context);
        op_ends_known(scope);
        return;
      case Begun::Touches:
        return ComputeObserved(kernel, scope.own.kernel, KindOf(*kernel, scope.own.kernel), context);
      case Begun::Unmet: {
        const uint32_t number = Meet(kernel);
        return ComputeObserved(kernel, number, ObservedKind(kernel, number), context);
      }
    }
  }
  void ComputeAsync(AsyncOpKernel* kernel, OpKernelContext* context, AsyncOpKernel::DoneCallback done) override {
    Touches inputs;
    const uint32_t number = NumberOf(kernel);
    const KernelKind kind = ObservedKind(kernel, number);
    AppendInputs(context, kind, &inputs);
    const Scope scope = op_begins(number, context->step_id(), AsSlice(inputs));
    kernel->ComputeAsync(context, [context, scope, kind, done]() {
      Touches outputs;
      AppendOutputs(context, kind, &outputs);
      op_ends(scope, {}, AsSlice(outputs), /*delay=*/false);
      done();
    });
    swap_context(scope.previous);
  }

 private:
  // What the kernel is known to touch: nothing as long as nobody wants to know.
  static KernelKind ObservedKind(const OpKernel* kernel, uint32_t number) {
    return observes() ? KindOf(*kernel, number) : KernelKind::kTouchesNothing;
  }

  // Tells what a kernel of this kind touches.
  void ComputeObserved(OpKernel* kernel, uint32_t number, KernelKind kind, OpKernelContext* context) {
    // Kept per thread, so that a step allocates nothing for them.
    static thread_local Touches inputs, outputs;
    inputs.clear();
    AppendInputs(context, kind, &inputs);
    // A kernel may run another one on this thread, which would use the same lists.
    Touches own_inputs;
    own_inputs.swap(inputs);
    const Scope scope = op_begins(number, context->step_id(), AsSlice(own_inputs));
    kernel->Compute(context);
    outputs.clear();
    AppendOutputs(context, kind, &outputs);
    LimitReads(kind, outputs, &own_inputs);
    op_ends(scope, AsSlice(own_inputs), AsSlice(outputs), /*delay=*/true);
    inputs.swap(own_inputs);
  }

  ContextPool pool_;
  Eigen::ThreadPoolDevice eigen_;
};

int DeviceCount(const SessionOptions& options) {
  const auto& counts = options.config.device_count();
  const auto found = counts.find("CPU");
  return found == counts.end() ? 1 : found->second;
}

std::unique_ptr<tensorflow::Device> NewStockDevice(const SessionOptions& options, const string& name, int index) {
  auto* process = tensorflow::ProcessState::singleton();
  tensorflow::DeviceLocality locality;
  int node = tensorflow::port::kNUMANoAffinity;
  if (options.config.experimental().use_numa_affinity()) {
    node = index % tensorflow::port::NUMANumNodes();
    locality.set_numa_node(node);
  }
  return std::unique_ptr<tensorflow::Device>(
      new tensorflow::ThreadPoolDevice(options, name, kMemoryLimit, locality, process->GetCPUAllocator(node)));
}

class SentinelDeviceFactory : public tensorflow::DeviceFactory {
 public:
  Status CreateDevices(const SessionOptions& options, const string& prefix,
                       std::vector<std::unique_ptr<tensorflow::Device>>* devices) override {
    string config;
    options.config.SerializeToString(&config);
    const Configured configured = configure({reinterpret_cast<const uint8_t*>(config.data()), config.size()});
    if (!configured.error.empty()) return tensorflow::errors::InvalidArgument(string(configured.error));
    for (int i = 0; i < DeviceCount(options); ++i) {
      const string name = tensorflow::strings::StrCat(prefix, "/device:CPU:", i);
      if (configured.enabled) {
        devices->emplace_back(new SentinelDevice(options, name, tensorflow::DeviceLocality()));
      } else {
        devices->push_back(NewStockDevice(options, name, i));
      }
    }
    if (configured.enabled) {
      const int inter_op = options.config.inter_op_parallelism_threads();
      set_threads(devices->empty() ? 1 : devices->back()->tensorflow_cpu_worker_threads()->num_threads,
                  inter_op > 0 ? inter_op : tensorflow::port::NumSchedulableCPUs());
      // The session copies its options after it has made its devices, so this is where an executor can be chosen for
      // scripts that know nothing of Sentinel.
      const_cast<SessionOptions&>(options).config.mutable_experimental()->set_executor_type(kExecutorType);
    }
    return Status::OK();
  }
};

}  // namespace

tensorflow::DeviceFactory* NewDeviceFactory() { return new SentinelDeviceFactory; }

}  // namespace sentinel
