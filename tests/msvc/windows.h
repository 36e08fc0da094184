#ifndef STAND_IN_WINDOWS_H
#define STAND_IN_WINDOWS_H
#include "crtdefs.h"
STAND_IN_BEGIN
typedef void *HANDLE;
typedef unsigned long DWORD;
typedef int BOOL;
typedef unsigned char BOOLEAN;
typedef struct { void *Ptr; } SRWLOCK, *PSRWLOCK, CONDITION_VARIABLE, *PCONDITION_VARIABLE;
#define WINAPI __stdcall
#define INFINITE 0xFFFFFFFF
#define STACK_SIZE_PARAM_IS_A_RESERVATION 0x00010000
#define ALL_PROCESSOR_GROUPS 0xFFFF
#define far
#define near
#define small char
#ifndef NOMINMAX
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#endif
__declspec(dllimport) void WINAPI InitializeSRWLock(PSRWLOCK);
__declspec(dllimport) void WINAPI AcquireSRWLockExclusive(PSRWLOCK);
__declspec(dllimport) BOOLEAN WINAPI TryAcquireSRWLockExclusive(PSRWLOCK);
__declspec(dllimport) void WINAPI ReleaseSRWLockExclusive(PSRWLOCK);
__declspec(dllimport) void WINAPI InitializeConditionVariable(PCONDITION_VARIABLE);
__declspec(dllimport) BOOL WINAPI SleepConditionVariableSRW(PCONDITION_VARIABLE, PSRWLOCK, DWORD, unsigned long);
__declspec(dllimport) void WINAPI WakeConditionVariable(PCONDITION_VARIABLE);
__declspec(dllimport) void WINAPI WakeAllConditionVariable(PCONDITION_VARIABLE);
__declspec(dllimport) DWORD WINAPI GetActiveProcessorCount(unsigned short);
__declspec(dllimport) DWORD WINAPI WaitForSingleObject(HANDLE, DWORD);
__declspec(dllimport) BOOL WINAPI CloseHandle(HANDLE);
__declspec(dllimport) BOOL WINAPI SwitchToThread(void);
__declspec(dllimport) BOOL WINAPI MoveFileExW(const wchar_t *, const wchar_t *, DWORD);
#define YieldProcessor() _mm_pause()
STAND_IN_END
#endif
