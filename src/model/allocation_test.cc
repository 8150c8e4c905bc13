// Nothing is allocated in a step that is like one before: every operator new of this program is counted.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kernels/registry.h"
#include "model/forward.h"
#include "model/synthetic.h"

namespace {

std::atomic<size_t> allocations{0};

void* count_and_try(std::size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes == 0 ? 1 : bytes);
}

void* count_and_allocate(std::size_t bytes) {
  if (void* at = count_and_try(bytes)) return at;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) {
  return count_and_allocate(bytes);
}
void* operator new[](std::size_t bytes) {
  return count_and_allocate(bytes);
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return count_and_try(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return count_and_try(bytes);
}
void operator delete(void* at) noexcept {
  std::free(at);
}
void operator delete[](void* at) noexcept {
  std::free(at);
}
void operator delete(void* at, std::size_t) noexcept {
  std::free(at);
}
void operator delete[](void* at, std::size_t) noexcept {
  std::free(at);
}

using namespace nautile;

TEST_CASE("a step allocates nothing once its buffers have grown") {
  const ModelConfig config = tiny_config();
  const Checkpoint checkpoint = synthetic_checkpoint(config, Variant{}, 1).value();
  for (const std::string& isa : available_isas()) {
    for (const Numerics numerics : {Numerics::kFast, Numerics::kReference, Numerics::kExact}) {
      for (const int threads : {1, 2}) {
        ThreadPool pool(threads);
        const Kernels* kernels = find_kernels(isa).value();
        const Weights weights = load_weights(checkpoint, config, {kernels, policy_of(numerics), nullptr, false}).value();
        Forward forward(weights, numerics, *kernels, pool);
        SequenceState first(forward.layout()), second(forward.layout());
        std::vector<int32_t> tokens(50);
        for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 96);
        const BatchItem prompts[] = {{&first, tokens}, {&second, std::span(tokens).first(30)}};
        REQUIRE(forward(prompts, Logits::kLast).ok());
        for (const size_t count : {1, 3}) {
          const BatchItem step[] = {{&first, std::span(tokens).first(count)}, {&second, std::span(tokens).first(1)}};
          for (int round = 0; round < 2; ++round) {
            const size_t before = allocations.load();
            const bool ok = forward(step, Logits::kLast).ok();
            const size_t after = allocations.load();
            REQUIRE(ok);
            if (round == 1) CHECK_MESSAGE(after == before, isa << ", " << threads << " threads, " << count << " tokens");
            REQUIRE(first.rollback(50).ok());
            REQUIRE(second.rollback(30).ok());
          }
        }
      }
    }
  }
}
