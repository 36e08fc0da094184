#ifndef STAND_IN_MATH_H
#define STAND_IN_MATH_H
#include "crtdefs.h"
STAND_IN_BEGIN
double _CRT sqrt(double);
double _CRT fabs(double);
double _CRT exp(double);
double _CRT log(double);
double _CRT pow(double, double);
double _CRT floor(double);
double _CRT ldexp(double, int);
double _CRT frexp(double, int *);
double _CRT hypot(double, double);
double _CRT cos(double);
double _CRT sin(double);
float _CRT sqrtf(float);
float _CRT fabsf(float);
float _CRT floorf(float);
float _CRT ceilf(float);
float _CRT roundf(float);
double _CRT round(double);
float _CRT expf(float);
float _CRT logf(float);
float _CRT powf(float, float);
float _CRT log2f(float);
float _CRT exp2f(float);
double _CRT log2(double);
double _CRT ceil(double);
float _CRT ldexpf(float, int);
float _CRT frexpf(float, int *);
float _CRT hypotf(float, float);
float _CRT fmaxf(float, float);
float _CRT fminf(float, float);
double _CRT fmax(double, double);
double _CRT fmin(double, double);
float _CRT cbrtf(float);
STAND_IN_END
#define isfinite(x) __builtin_isfinite(x)
#define isnan(x) __builtin_isnan(x)
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VAL __builtin_inf()
#endif
