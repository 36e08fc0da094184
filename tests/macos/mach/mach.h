#ifndef STAND_IN_MACH_H
#define STAND_IN_MACH_H
#include <stdint.h>
typedef int kern_return_t;
typedef unsigned mach_port_t, mach_msg_type_number_t, natural_t;
typedef int *host_info64_t;
typedef struct vm_statistics64 {
    natural_t free_count, active_count, inactive_count, wire_count;
    uint64_t zero_fill_count, reactivations, pageins, pageouts, faults, cow_faults, lookups, hits, purges;
    natural_t purgeable_count, speculative_count;
} vm_statistics64_data_t;
#define HOST_VM_INFO64 4
#define HOST_VM_INFO64_COUNT ((mach_msg_type_number_t)(sizeof(vm_statistics64_data_t) / sizeof(int)))
#define KERN_SUCCESS 0
mach_port_t mach_host_self(void);
kern_return_t host_statistics64(mach_port_t, int, host_info64_t, mach_msg_type_number_t *);
#endif
