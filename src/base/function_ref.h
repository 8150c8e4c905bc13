// FunctionRef: a call of something that outlives the call: a std::function that owns nothing and never allocates.
//
// Thread-safety: as that of what it refers to.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace nautile {

template <class Signature>
class FunctionRef;

template <class Out, class... In>
class FunctionRef<Out(In...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)  // NOLINT: implicit, so that a lambda can be passed where it is written
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))), call_([](void* object, In... in) -> Out {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<In>(in)...);
        }) {}

  Out operator()(In... in) const { return call_(object_, std::forward<In>(in)...); }
  // What is called: where its variables lie.
  const void* object() const { return object_; }

 private:
  void* object_;
  Out (*call_)(void*, In...);
};

}  // namespace nautile
