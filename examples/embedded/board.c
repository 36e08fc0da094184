/* board.c - a Cortex-M4F from reset to main with nothing beneath: vectors, memory, FPU, and output by
 * semihosting (Arm, Semihosting for AArch32 and AArch64), which a debugger or qemu answers. */
#include <stdint.h>

extern uint32_t stack_top, stack_bottom, data_load, data_start, data_end, bss_start, bss_end; /* board.ld */
int main(void);
void reset(void);
void put(const char *text);

static int semihost(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void put(const char *text) { semihost(4, text); } /* SYS_WRITE0 */

static void leave(uint32_t status) {
    const uint32_t block[2] = {0x20026, status}; /* ADP_Stopped_ApplicationExit */
    semihost(0x20, block);                       /* SYS_EXIT_EXTENDED */
    for (;;) {}
}

static void fault(void) {
    put("fault\n");
    leave(1);
}

/* How deep the C stack has been: the words below the lowest one used still hold the paint. */
static void put_depth(void) {
    const uint32_t *at = &stack_bottom;
    char text[12], *digit = text + sizeof text - 1;
    while (at < &stack_top && *at == 0x5AFE57AC) at++;
    uint32_t bytes = (uint32_t)((uintptr_t)&stack_top - (uintptr_t)at);
    *digit = 0;
    do *--digit = (char)('0' + bytes % 10), bytes /= 10;
    while (bytes);
    put("board: C stack used: "), put(digit), put(" bytes\n");
}

void reset(void) {
    uint32_t *to, *from = &data_load, *here = (uint32_t *)__builtin_frame_address(0) - 16;
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the FPU may be used */
    __asm__ volatile("dsb\n isb" ::: "memory");
    for (to = &data_start; to < &data_end;) *to++ = *from++;
    for (to = &bss_start; to < &bss_end;) *to++ = 0;
    for (to = &stack_bottom; to < here;) *to++ = 0x5AFE57AC;
    const int status = main();
    put_depth();
    leave((uint32_t)status);
}

static const struct {
    const void *stack;
    void (*handlers[15])(void);
} vectors __attribute__((section(".vectors"), used)) = {&stack_top, {reset, fault, fault, fault, fault, fault}};
