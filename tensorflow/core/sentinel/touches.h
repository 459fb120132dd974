// Which buffers a kernel reads and writes, by address and size.
#ifndef TENSORFLOW_CORE_SENTINEL_TOUCHES_H_
#define TENSORFLOW_CORE_SENTINEL_TOUCHES_H_

#include <vector>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sentinel {

using Touches = std::vector<Touch>;

// Appends what the kernel is about to read, and what it is about to update in place. Takes addresses only: a copy of a
// Tensor that lives across Compute would keep TensorFlow from forwarding its buffer.
void AppendInputs(tensorflow::OpKernelContext* context, Touches* touches);

// Appends what the kernel has written.
void AppendOutputs(tensorflow::OpKernelContext* context, Touches* touches);

// Some kernels read of their first input only what they return: a row of a table, a part of a batch.
void LimitReads(const tensorflow::OpKernelContext& context, const Touches& outputs, Touches* inputs);

inline rust::Slice<const Touch> AsSlice(const Touches& touches) { return {touches.data(), touches.size()}; }

}  // namespace sentinel

#endif  // TENSORFLOW_CORE_SENTINEL_TOUCHES_H_
