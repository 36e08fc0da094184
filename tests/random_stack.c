/* random_stack PATH WIDTH HIDDEN LAYERS LEVELS: for tests that are scripts. */
#include "random_stack.h"

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    return random_stack(argv[1], (uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]), (uint32_t)atoi(argv[5]), 1024, NULL);
}
