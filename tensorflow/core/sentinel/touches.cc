#define EIGEN_USE_THREADS
#include "tensorflow/core/sentinel/touches.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <string>
#include <unordered_map>

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace sentinel {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;

// The root buffer's begin sees through views: a reshaped or sliced tensor names the block it lives in.
void Append(const Tensor& tensor, bool write, Touches* touches) {
  if (!tensor.IsInitialized() || tensor.TotalBytes() == 0) return;
  const tensorflow::TensorBuffer* buffer = tensorflow::DMAHelper::buffer(&tensor);
  if (buffer == nullptr) return;
  auto* root = const_cast<tensorflow::TensorBuffer*>(buffer)->root_buffer();
  touches->push_back({reinterpret_cast<size_t>(root->data()), tensor.TotalBytes(), write});
}

// Kernels that take a resource and write its variable say so in their names only.
bool WritesResources(const tensorflow::string& type) {
  return tensorflow::str_util::StartsWith(type, "ResourceApply") ||
         tensorflow::str_util::StartsWith(type, "ResourceSparseApply") ||
         tensorflow::str_util::StartsWith(type, "ResourceScatter") ||
         tensorflow::str_util::StartsWith(type, "AssignAdd") || tensorflow::str_util::StartsWith(type, "AssignSub");
}

void AppendResource(OpKernelContext* context, const Tensor& handle, bool writes, Touches* touches) {
  if (!handle.IsInitialized() || handle.NumElements() != 1) return;
  tensorflow::Var* variable = nullptr;
  if (!LookupResource(context, handle.scalar<tensorflow::ResourceHandle>()(), &variable).ok()) return;
  tensorflow::core::ScopedUnref unref(variable);
  tensorflow::tf_shared_lock lock(*variable->mu());
  Append(*variable->tensor(), false, touches);
  if (writes) Append(*variable->tensor(), true, touches);
}

// Kernels that hand a buffer on, or look at its shape, without touching its bytes.
constexpr const char* kTouchNothing[] = {
    "_Arg",
    "_Recv",
    "_Retval",
    "_Send",
    "_HostRecv",
    "_HostSend",
    "Enter",
    "Exit",
    "ExpandDims",
    "Identity",
    "IdentityN",
    "Merge",
    "NoOp",
    "LoopCond",
    "NextIteration",
    "PlaceholderWithDefault",
    "PreventGradient",
    "Rank",
    "RefEnter",
    "RefExit",
    "RefIdentity",
    "RefMerge",
    "RefNextIteration",
    "RefSwitch",
    "Reshape",
    "SentinelAddLayer",
    "Shape",
    "ShapeN",
    "Size",
    "Squeeze",
    "StopGradient",
    "Switch",
    "VarHandleOp",
    "Variable",
    "VariableV2",
    "VarIsInitializedOp",
};
// Kernels that read of their first input only what they return: a row of a table, a part of a batch.
constexpr const char* kReadPart[] = {
    "Gather", "GatherNd", "GatherV2", "ResourceGather", "Slice", "StridedSlice",
};

std::unordered_map<std::string, KernelKind> Kinds() {
  std::unordered_map<std::string, KernelKind> kinds;
  for (const char* type : kTouchNothing) kinds.emplace(type, KernelKind::kTouchesNothing);
  for (const char* type : kReadPart) kinds.emplace(type, KernelKind::kReadsPart);
  return kinds;
}

KernelKind KindByType(const tensorflow::OpKernel& kernel) {
  static const auto* const kinds = new auto(Kinds());
  const auto found = kinds->find(kernel.type_string());
  return found == kinds->end() ? KernelKind::kReadsAll : found->second;
}

// One more than the kind, by kernel number, 0 where none was noted: a profiled step would look every type up otherwise.
// Kernels with larger numbers are looked up.
std::array<std::atomic<uint8_t>, 1 << 16> noted_kinds;

}  // namespace

void NoteKind(const tensorflow::OpKernel& kernel, uint32_t number) {
  if (number >= noted_kinds.size()) return;
  noted_kinds[number].store(static_cast<uint8_t>(KindByType(kernel)) + 1, std::memory_order_relaxed);
}

KernelKind KindOf(const tensorflow::OpKernel& kernel, uint32_t number) {
  const uint8_t noted = number < noted_kinds.size() ? noted_kinds[number].load(std::memory_order_relaxed) : 0;
  return noted > 0 ? static_cast<KernelKind>(noted - 1) : KindByType(kernel);
}

void AppendInputs(OpKernelContext* context, KernelKind kind, Touches* touches) {
  if (kind == KernelKind::kTouchesNothing) return;
  for (int i = 0; i < context->num_inputs(); ++i) {
    if (!context->has_input(i)) continue;
    if (context->input_is_ref(i)) {
      // A kernel asks for a reference only to update it.
      const Tensor variable = context->mutable_input(i, /*lock_held=*/false);
      Append(variable, false, touches);
      Append(variable, true, touches);
      continue;
    }
    const Tensor& input = context->input(i);
    if (input.dtype() == tensorflow::DT_RESOURCE) {
      AppendResource(context, input, WritesResources(context->op_kernel().type_string()), touches);
    } else {
      Append(input, false, touches);
    }
  }
}

void AppendOutputs(OpKernelContext* context, KernelKind kind, Touches* touches) {
  if (kind == KernelKind::kTouchesNothing) return;
  for (int i = 0; i < context->num_outputs(); ++i) {
    // References were counted as inputs.
    if (tensorflow::IsRefType(context->expected_output_dtype(i))) continue;
    const Tensor* output = context->mutable_output(i);
    if (output != nullptr) Append(*output, true, touches);
  }
}

void LimitReads(KernelKind kind, const Touches& outputs, Touches* inputs) {
  if (inputs->empty() || kind != KernelKind::kReadsPart) return;
  uint64_t returned = 0;
  for (const Touch& output : outputs) returned += output.bytes;
  inputs->front().bytes = std::min(inputs->front().bytes, returned);
}

}  // namespace sentinel
