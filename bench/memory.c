/* How much memory and time compressing a large model takes: writes a GGUF file with random F16 weights in the shape of
 * Llama 3 8B (4096 wide, feed-forward 14336, 32 heads on 8, 128256 tokens), or of Llama 3.2 1B (2048 wide, feed-forward 8192,
 * tied head), with as many layers as named (0: as many as that model has), runs
 *     build/bitstack compress FOLDER/memory.gguf -o FOLDER/memory.bitstack OPTIONS
 * and prints the peak of its resident memory and its time. Memory does not depend on the number of layers. */
#include "shapes.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const shape *of = argc > 3 ? shape_named(argv[2]) : NULL;
    if (!of || atoi(argv[3]) < 0 || argc > 60) return fputs("usage: memory FOLDER 8b|1b LAYERS [options of bitstack compress]\n", stderr), 2;
    const int layers = atoi(argv[3]) ? atoi(argv[3]) : of->layers;
    char path[600], out[600];
    char *command[64] = {(char *)(uintptr_t)"build/bitstack", (char *)(uintptr_t)"compress", path, (char *)(uintptr_t)"-o", out};
    snprintf(path, sizeof path, "%s/memory.gguf", argv[1]);
    snprintf(out, sizeof out, "%s/memory.bitstack", argv[1]);
    for (int i = 4; i < argc; i++) command[1 + i] = argv[i];
    const double size = (double)shape_write(path, of, layers, NULL), weights = (double)shape_layer_weights(of) * layers;
    if (size == 0) return fprintf(stderr, "cannot write %s\n", path), 1;

    struct timespec start, end;
    struct rusage used;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = fork();
    if (child == 0) execv(command[0], command), _exit(127);
    wait4(child, &status, 0, &used);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec), cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    printf("model %.2f GB, %d layers of %.3f billion weights; exit status %d\n", size / 1e9, layers, weights / layers / 1e9, WEXITSTATUS(status));
    printf("peak resident memory %.2f GB; %.0f s, %.0f s of processors; a billion weights: %.0f s, %.0f s of processors\n",
           (double)used.ru_maxrss * 1024 / 1e9, seconds, cpu, seconds / weights * 1e9, cpu / weights * 1e9);
    return status != 0;
}
