// Sentinel's memory as TensorFlow allocators. Nothing is decided here: sizes go to Rust, addresses come back.
#ifndef TENSORFLOW_CORE_SENTINEL_ALLOCATOR_H_
#define TENSORFLOW_CORE_SENTINEL_ALLOCATOR_H_

#define EIGEN_USE_THREADS
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/allocator_registry.h"
#include "third_party/eigen3/unsupported/Eigen/CXX11/Tensor"

namespace sentinel {

// The allocator of Sentinel's device. One per process, never destroyed: tensors may outlive every session.
tensorflow::Allocator* DeviceAllocator();

// The same for Eigen's temporaries, which stock TensorFlow takes from malloc.
Eigen::Allocator* EigenAllocator();

// For the process-wide registry: Sentinel's memory inside operations of Sentinel's sessions, stock memory elsewhere.
tensorflow::AllocatorFactory* NewRegistryFactory();

}  // namespace sentinel

#endif  // TENSORFLOW_CORE_SENTINEL_ALLOCATOR_H_
