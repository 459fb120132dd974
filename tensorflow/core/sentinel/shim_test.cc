// The shim inside TensorFlow's framework library, without Python: what it registers, and whose memory is whose.
#define EIGEN_USE_THREADS
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/core/common_runtime/device.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/common_runtime/executor_factory.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/public/session_options.h"
#include "tensorflow/core/sentinel/allocator.h"
#include "tensorflow/core/sentinel/device.h"
#include "tensorflow/core/sentinel/ready_queue.h"

namespace {

int failures = 0;

void Expect(bool holds, const char* what) {
  std::printf("%s: %s\n", holds ? "ok" : "FAILED", what);
  failures += holds ? 0 : 1;
}

void TestRegistrations() {
  tensorflow::ExecutorFactory* executor = nullptr;
  Expect(tensorflow::ExecutorFactory::GetFactory(sentinel::kExecutorType, &executor).ok(), "the executor is found");
  for (const char* name : {"SentinelStartProfile", "SentinelEndProfile", "SentinelAddLayer"}) {
    const tensorflow::OpDef* definition = nullptr;
    Expect(tensorflow::OpRegistry::Global()->LookUpOpDef(name, &definition).ok(), name);
  }
  Expect(tensorflow::DeviceFactory::DevicePriority("CPU") == 65, "the device is preferred to the stock one");
}

void TestMemory(tensorflow::Allocator* allocator, const char* name) {
  for (size_t bytes : {size_t{1}, size_t{4096}, size_t{3} << 20}) {
    void* block = allocator->AllocateRaw(64, bytes);
    const bool usable = block != nullptr && reinterpret_cast<uintptr_t>(block) % 64 == 0;
    Expect(usable, name);
    if (usable) std::memset(block, 0x5a, bytes);
    allocator->DeallocateRaw(block);
  }
}

void TestEigen() {
  Eigen::Allocator* allocator = sentinel::EigenAllocator();
  void* block = allocator->allocate(1 << 16);
  Expect(block != nullptr, "Eigen gets memory");
  allocator->deallocate(block);
}

// Returns whether devices can be made with this field 200 of ConfigProto.Experimental, which is Sentinel's.
bool CanMakeDevices(const std::string& options) {
  tensorflow::SessionOptions session;
  // Field 16 is `experimental`, as TensorFlow's own classes do not know the field inside.
  std::string inner = std::string("\xc2\x0c", 2) + static_cast<char>(options.size()) + options;
  std::string outer = std::string("\x82\x01", 2) + static_cast<char>(inner.size()) + inner;
  if (!session.config.ParseFromString(outer)) return false;
  std::vector<std::unique_ptr<tensorflow::Device>> made;
  const tensorflow::Status status =
      tensorflow::DeviceFactory::GetFactory("CPU")->CreateDevices(session, "/job:localhost/replica:0/task:0", &made);
  std::printf("devices: %s\n", status.ToString().c_str());
  return status.ok() && made.size() == 1;
}

// The order in which three closures run when the threads' own closures come in this order.
std::string OrderOfThree(sentinel::Order order, const std::vector<size_t>& turns) {
  std::vector<std::function<void()>> closures;
  std::string ran;
  sentinel::StepStart start;
  start.order = order;
  start.watched = false;
  start.growth_bytes_at_most = 0;
  auto queue =
      sentinel::ReadyQueue::Make([&](std::function<void()> work) { closures.push_back(std::move(work)); }, start);
  for (char name : {'a', 'b', 'c'}) queue->Add([&ran, name]() { ran += name; });
  for (size_t turn : turns) closures[turn]();
  tensorflow::uint64 growth_bytes = 0;
  queue->StepEnds(/*ok=*/true, /*out_of_memory=*/false, &growth_bytes);
  queue->Add([&ran]() { ran += "."; });
  // Who waits keeps the queue.
  queue.reset();
  closures.back()();
  return ran;
}

void TestReadyQueue() {
  Expect(OrderOfThree(sentinel::Order::OldestFirst, {2, 0, 1}) == "abc.", "the oldest is first");
  Expect(OrderOfThree(sentinel::Order::Session, {2, 0, 1}) == "cab.", "the session's order is kept");
  Expect(OrderOfThree(sentinel::Order::Session, {1, 2, 0}) == "bca.",
         "and what was taken out of the middle is skipped");
}

void TestOptions() {
  Expect(CanMakeDevices(""), "a session without options gets its device");
  // An unknown field, number 100.
  Expect(!CanMakeDevices(std::string("\xa0\x06\x01", 3)), "an unknown option stops the session");
}

}  // namespace

int main() {
  TestRegistrations();
  TestMemory(sentinel::DeviceAllocator(), "the device's memory is aligned and can be written");
  std::unique_ptr<tensorflow::AllocatorFactory> factory(sentinel::NewRegistryFactory());
  std::unique_ptr<tensorflow::Allocator> stock(factory->CreateAllocator());
  TestMemory(stock.get(), "the registry's memory is aligned and can be written");
  TestEigen();
  TestReadyQueue();
  TestOptions();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
