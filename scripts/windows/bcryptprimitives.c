// Wine 8, Debian 12's, lacks bcryptprimitives.dll, whose one function Go's runtime asks
// for at its start. See test.sh.
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG); // RtlGenRandom of advapi32

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }
