#pragma once

#ifdef __cplusplus
extern "C"
#endif
/* Calls work(argument). Returns 0 if that raised an exception of whatever language, which is dropped with its frames. */
int webcompile_guard(void (*work)(void*), void* argument);
