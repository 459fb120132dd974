// An executor that tells Rust where steps begin and end, and which kernels a graph owns.
#ifndef TENSORFLOW_CORE_SENTINEL_EXECUTOR_H_
#define TENSORFLOW_CORE_SENTINEL_EXECUTOR_H_

#include "tensorflow/core/common_runtime/executor_factory.h"

namespace sentinel {

tensorflow::ExecutorFactory* NewExecutorFactory();

}  // namespace sentinel

#endif  // TENSORFLOW_CORE_SENTINEL_EXECUTOR_H_
