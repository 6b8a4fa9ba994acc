/* Outlives Rust's panics. wgpu-native panics where it has no other way to tell of a lost device, from functions that a
   panic may not leave: a C++ handler further up would make Rust end the process. Before any frame is left, though, the
   unwinder asks each for a handler, through the personality routine of its language. Ours, in the place of that of C,
   does not answer: it goes back to where the guarded call began. The frames in between are forgotten with what little
   they hold. */
#include "guard.h"

#include <setjmp.h>
#include <unwind.h>

static __thread jmp_buf* place;

/* What C functions with a cleanup, here only `webcompile_guard`, name as their personality routine. */
__attribute__((visibility("hidden"))) _Unwind_Reason_Code __gcc_personality_v0(int version, _Unwind_Action actions,
                                                                                _Unwind_Exception_Class kind,
                                                                                struct _Unwind_Exception* exception,
                                                                                struct _Unwind_Context* context) {
  (void)version, (void)actions, (void)kind, (void)exception, (void)context;
  longjmp(*place, 1);
}

/* Must not be optimized away, as the routine would be with it. */
static void nothing(volatile int* mark) { *mark = 0; }

int webcompile_guard(void (*work)(void*), void* argument) {
  jmp_buf here;
  place = &here;
  if (setjmp(here)) return 0;
  volatile int mark __attribute__((cleanup(nothing))) = 1;
  work(argument);
  return 1;
}
