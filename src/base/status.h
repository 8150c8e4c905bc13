// The public Status and Result, with the macros that pass errors up.
#pragma once

#include "nautile/status.h"

#define NAUTILE_CONCAT_(a, b) a##b
#define NAUTILE_CONCAT(a, b) NAUTILE_CONCAT_(a, b)

// NAUTILE_RETURN_IF_ERROR(call()); returns the Status if it is an error.
#define NAUTILE_RETURN_IF_ERROR(expr)                        \
  do {                                                       \
    if (::nautile::Status status_ = (expr); !status_.ok()) { \
      return status_;                                        \
    }                                                        \
  } while (false)

// NAUTILE_ASSIGN(auto x, call()); declares x from a Result or returns its Status.
#define NAUTILE_ASSIGN(declaration, expr) NAUTILE_ASSIGN_(declaration, expr, NAUTILE_CONCAT(result_, __LINE__))
#define NAUTILE_ASSIGN_(declaration, expr, name) \
  auto name = (expr);                            \
  if (!name.ok()) return name.status();          \
  declaration = std::move(name).value()
