# make            the command, the examples
# make test       everything that must hold; the last line is "N passed, M failed"
# make demo       compress the small model in examples/models, then run it at many sizes
# make bench      kernels: CSV and table
# make embedded   a network in flash on a bare Cortex-M4, in qemu
# Variables: CC, CFLAGS, BUILD.
CC ?= cc
CFLAGS ?= -O2 -g
BUILD ?= build
WARN = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-align -Wstrict-prototypes
FLAGS = -std=c11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -I. -pthread
LIBS = -lm -pthread
HEADERS = bitstack.h bitstack_compress.h

LIB = $(BUILD)/bitstack.o $(BUILD)/bitstack_compress.o
LLM = $(patsubst examples/llm/%.c,$(BUILD)/llm/%.o,$(wildcard examples/llm/*.c))
COMMAND = $(patsubst examples/bitstack/%.c,$(BUILD)/command/%.o,$(wildcard examples/bitstack/*.c))
TESTS = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
EXAMPLES = $(patsubst examples/%.c,$(BUILD)/%,$(wildcard examples/*.c))

all: $(BUILD)/bitstack $(EXAMPLES)

# The headers are their own source: no third file.
$(BUILD)/bitstack.o: bitstack.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -DBITSTACK_IMPLEMENTATION -x c -c $< -o $@
$(BUILD)/bitstack_compress.o: bitstack_compress.h bitstack.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c $< -o $@
$(BUILD)/llm/%.o: examples/llm/%.c $(wildcard examples/llm/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -c $< -o $@
$(BUILD)/command/%.o: examples/bitstack/%.c $(wildcard examples/bitstack/*.h examples/llm/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -c $< -o $@
$(BUILD)/bitstack: $(COMMAND) $(LLM) $(LIB)
	$(CC) $(FLAGS) $^ -o $@ $(LIBS)
$(BUILD)/%: examples/%.c $(LIB)
	$(CC) $(FLAGS) $^ -o $@ $(LIBS)
$(BUILD)/tests/%: tests/%.c tests/test.h $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< $(LLM) $(LIB) -o $@ $(LIBS)

test: all $(TESTS)
	@tests/run.sh $(TESTS) $(wildcard tests/test_*.sh)

# The bare-metal example; needs arm-none-eabi-gcc and qemu-system-arm.
embedded:
	$(MAKE) -C examples/embedded

clean:
	rm -rf $(BUILD)

.PHONY: all test clean
