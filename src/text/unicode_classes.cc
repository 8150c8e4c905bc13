// Spreads the generated ranges over a flat table.
#include "text/unicode_classes.h"

#include <algorithm>

namespace nautile {

UnicodeClasses::UnicodeClasses() : classes_(0x110000, kNone) {
  struct Range {
    uint32_t first, last;
    Class of;
  };
  static constexpr Range kRanges[] = {
#include "text/unicode_ranges.inc"
  };
  for (const Range& range : kRanges) {
    std::fill(classes_.begin() + range.first, classes_.begin() + range.last + 1, range.of);
  }
}

}  // namespace nautile
