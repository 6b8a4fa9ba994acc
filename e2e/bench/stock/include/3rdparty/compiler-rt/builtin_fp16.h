// Widening of float16 bits, which TVM's host sort compares by. The wheel ships the user of this header, not the header.
#pragma once

#include <cmath>
#include <cstdint>

template <typename Source, typename SourceBits, int SOURCE_MANTISSA, typename Target, typename TargetBits, int TARGET_MANTISSA>
inline Target __extendXfYf2__(Source bits) {
  static_assert(SOURCE_MANTISSA == 10 && TARGET_MANTISSA == 23);
  int exponent = (bits >> 10) & 31;
  Target mantissa = static_cast<Target>(bits & 1023);
  Target sign = (bits >> 15) ? Target(-1) : Target(1);
  if (exponent == 31) return sign * (mantissa == 0 ? Target(INFINITY) : Target(NAN));
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(mantissa + 1024, exponent - 25);
}
