#include "tensorflow/core/sentinel/allocator.h"

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/platform/mem.h"

namespace sentinel {
namespace {

// A block of Sentinel's, or stock memory while there is no Sentinel or it has none left. Which of the two it was shows
// in the address.
void* Take(size_t alignment, size_t num_bytes) {
  void* block = allocate(alignment, num_bytes);
  return block != nullptr ? block : tensorflow::port::AlignedMalloc(num_bytes, static_cast<int>(alignment));
}

void Release(void* block) {
  if (block != nullptr && !release(static_cast<uint8_t*>(block))) {
    tensorflow::port::AlignedFree(block);
  }
}

class SentinelAllocator : public tensorflow::Allocator {
 public:
  tensorflow::string Name() override { return "sentinel"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override { return Take(alignment, num_bytes); }
  void DeallocateRaw(void* block) override { Release(block); }
};

class SentinelEigenAllocator : public Eigen::Allocator {
 public:
  void* allocate(size_t num_bytes) const override {
    return Take(tensorflow::Allocator::kAllocatorAlignment, num_bytes);
  }
  void deallocate(void* block) const override { Release(block); }
};

// What the process-wide registry hands out: Sentinel's memory inside the operations of Sentinel's sessions, and stock
// memory for everybody else, so that other sessions get what stock TensorFlow would give them.
class RegistryAllocator : public tensorflow::Allocator {
 public:
  tensorflow::string Name() override { return "cpu"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override {
    if (context().kernel != UINT32_MAX) return Take(alignment, num_bytes);
    return tensorflow::port::AlignedMalloc(num_bytes, static_cast<int>(alignment));
  }
  void DeallocateRaw(void* block) override { Release(block); }
};

// Chunks for TF_CPU_ALLOCATOR_USE_BFC, which other sessions share: stock memory.
class RegistrySubAllocator : public tensorflow::SubAllocator {
 public:
  RegistrySubAllocator() : SubAllocator({}, {}) {}
  void* Alloc(size_t alignment, size_t num_bytes) override {
    return tensorflow::port::AlignedMalloc(num_bytes, static_cast<int>(alignment));
  }
  void Free(void* block, size_t num_bytes) override { tensorflow::port::AlignedFree(block); }
};

class RegistryFactory : public tensorflow::AllocatorFactory {
 public:
  tensorflow::Allocator* CreateAllocator() override { return new RegistryAllocator; }
  tensorflow::SubAllocator* CreateSubAllocator(int numa_node) override { return new RegistrySubAllocator; }
};

}  // namespace

tensorflow::Allocator* DeviceAllocator() {
  static auto* const allocator = new SentinelAllocator;
  return allocator;
}

Eigen::Allocator* EigenAllocator() {
  static auto* const allocator = new SentinelEigenAllocator;
  return allocator;
}

tensorflow::AllocatorFactory* NewRegistryFactory() { return new RegistryFactory; }

}  // namespace sentinel
