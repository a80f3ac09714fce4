// Conversions between float and the small floating-point formats that weights are stored in.
#pragma once

#include <cstdint>

namespace baton {

float HalfToFloat(uint16_t bits);  // IEEE binary16
float Bfloat16ToFloat(uint16_t bits);
float Fp8E4M3ToFloat(uint8_t bits);  // OCP E4M3: no infinities, largest 448, 0x7f and 0xff are NaN

// To nearest, ties to even.
uint16_t FloatToHalf(float value);      // beyond the range: infinity
uint16_t FloatToBfloat16(float value);  // likewise
uint8_t FloatToFp8E4M3(float value);    // saturates at ±448

}  // namespace baton
