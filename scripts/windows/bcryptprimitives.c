/*
** bcryptprimitives.dll, which Rust's standard library asks for random numbers and Wine 8 lacks.
**
** ProcessPrng fills `n` bytes and returns TRUE, as on Windows; here by RtlGenRandom, which advapi32
** exports as SystemFunction036. For tests under Wine only.
*/
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID into, ULONG n);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE into, SIZE_T n){
  return SystemFunction036(into, (ULONG)n);
}
