#include "model/normal_quantile.h"

#include <cmath>

namespace baton {
namespace {

// Natural logarithm of x in (0, 1]: libm's last bit differs from version to version.
double Log(double x) {
  constexpr double kLn2 = 0.69314718055994530942;
  int exponent;
  const double mantissa = std::frexp(x, &exponent);  // [0.5, 1)
  const double ratio = (mantissa - 1) / (mantissa + 1);
  double term = ratio, sum = 0;
  for (int i = 1; i < 40; i += 2) {  // 2 atanh(ratio), |ratio| <= 1/3
    sum += term / i;
    term *= ratio * ratio;
  }
  return 2 * sum + exponent * kLn2;
}

double Polynomial(const double* coefficients, int count, double x) {
  double value = 0;
  for (int i = 0; i < count; ++i) value = value * x + coefficients[i];
  return value;
}

// The rational approximation by P. J. Acklam (2003) of the inverse of the normal distribution; p in (0, 0.5].
double LowerQuantile(double p) {
  constexpr double kCentralNumerator[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                                          1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
  constexpr double kCentralDenominator[] = {-5.447609879822406e+01, 1.615858368580409e+02,  -1.556989798598866e+02,
                                            6.680131188771972e+01,  -1.328068155288572e+01, 1.0};
  constexpr double kTailNumerator[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                       -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
  constexpr double kTailDenominator[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                                         3.754408661907416e+00, 1.0};
  if (p < 0.02425) {
    const double q = std::sqrt(-2 * Log(p));
    return Polynomial(kTailNumerator, 6, q) / Polynomial(kTailDenominator, 5, q);
  }
  const double q = p - 0.5;
  return q * Polynomial(kCentralNumerator, 6, q * q) / Polynomial(kCentralDenominator, 6, q * q);
}

}  // namespace

std::vector<double> NormalQuantiles(int32_t size) {
  std::vector<double> table(size);
  for (int32_t i = 0; i < (size + 1) / 2; ++i) {
    table[i] = LowerQuantile((i + 0.5) / size);
    table[size - 1 - i] = -table[i];
  }
  return table;
}

}  // namespace baton
