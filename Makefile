# make            the command, the examples
# make test       what must hold, in two minutes; the last line is "N passed, M failed". V=1: what is built, too
# make test-full  all of it: tests/README.md
# make demo       compress the small model in examples/models, then run it at many sizes
# make bench      kernels: CSV and table
# make embedded   a network in flash on a bare Cortex-M4, in qemu
# make wasm       the runtime as build/bitstack.wasm, for examples/minimal.mjs
# make install    headers, library, command, manual page to PREFIX (/usr/local), below DESTDIR; make uninstall; make shared
# Variables: CC, CXX, CFLAGS, BUILD; JOBS, of the tests' builds.
CC ?= cc
CFLAGS ?= -O2 -g
BUILD ?= build
WARN = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-align -Wstrict-prototypes
FLAGS = -std=c11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -I. -Iexamples -pthread
LIBS = -lm -pthread
ifneq ($(findstring mingw,$(CC)),) # make CC=x86_64-w64-mingw32-gcc build/bitstack.exe
EXE = .exe
LIBS = -lm -static -pthread -lpsapi
FLAGS += -Wa,-muse-unaligned-vector-move # as the headers do for themselves: GCC's bug 54412
endif
HEADERS = bitstack.h bitstack_compress.h

LIB = $(BUILD)/bitstack.o $(BUILD)/bitstack_compress.o
LLM = $(patsubst examples/llm/%.c,$(BUILD)/llm/%.o,$(wildcard examples/llm/*.c))
PEERS = $(patsubst bench/peers/%.c,$(BUILD)/peers/%.o,$(wildcard bench/peers/*.c))
COMMAND = $(patsubst examples/bitstack/%.c,$(BUILD)/command/%.o,$(wildcard examples/bitstack/*.c))
TESTS = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
EXAMPLES = $(patsubst examples/%.c,$(BUILD)/%,$(wildcard examples/*.c))

all: $(BUILD)/bitstack $(BUILD)/demo $(EXAMPLES)

# The headers are their own source: no third file.
$(BUILD)/bitstack.o: bitstack.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c $< -o $@
$(BUILD)/bitstack_compress.o: bitstack_compress.h bitstack.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c $< -o $@
$(BUILD)/llm/%.o: examples/llm/%.c $(wildcard examples/llm/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -c $< -o $@
$(BUILD)/llm/dense.o $(BUILD)/llm/attention.o: FLAGS += -ffp-contract=fast
$(BUILD)/peers/%.o: bench/peers/%.c $(wildcard bench/peers/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -O3 -c $< -o $@
$(BUILD)/command/%.o: examples/bitstack/%.c $(wildcard examples/bitstack/*.h examples/llm/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -c $< -o $@
$(BUILD)/command/plot.o: bench/svg.h
$(BUILD)/bitstack$(EXE): $(COMMAND) $(LLM) $(LIB)
	$(CC) $(FLAGS) $^ -o $@ $(LIBS)
# Each of these holds the implementation itself, as a user's program would.
$(BUILD)/%: examples/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< -o $@ $(LIBS)
$(BUILD)/demo: examples/demo/demo.c $(LLM) $(LIB)
	$(CC) $(FLAGS) $^ -o $@ $(LIBS)
$(BUILD)/tests/test_peers: tests/test_peers.c tests/test.h bench/peers/peer.h $(PEERS) $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< $(PEERS) $(LLM) $(LIB) -o $@ $(LIBS)
TALKING = $(patsubst %,$(BUILD)/tests/test_%,resize_while_talking chat memory resume join mix couple report output plan)
$(TALKING): $(BUILD)/tests/%: tests/%.c $(wildcard tests/*.h) $(COMMAND) $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< $(filter-out %/main.o,$(COMMAND)) $(LLM) $(LIB) -o $@ $(LIBS)
$(BUILD)/tests/%: tests/%.c $(wildcard tests/*.h examples/llm/*.h) $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< $(LLM) $(LIB) -o $@ $(LIBS)

REAL = $(BUILD)/bench/real $(BUILD)/bench/real_report
# The tests that run under sanitizers, and the fuzz targets that replay their seeds: objects of their own, made once.
ASAN = $(BUILD)/asan
TSAN = $(BUILD)/tsan
SANITIZED = -std=c11 -D_GNU_SOURCE -w -g -O0 -I. -Iexamples -Itests/fuzz -pthread -fno-sanitize-recover=all
SAME = bitstack.o bitstack_compress.o $(filter-out bitstack/main.o,$(patsubst examples/%.c,%.o,$(wildcard examples/llm/*.c examples/bitstack/*.c)))
ASAN_TESTS = $(patsubst %,$(ASAN)/tests/test_%,reader small_machines resize_while_multiplying writer threads_agree)
TSAN_TESTS = $(patsubst %,$(TSAN)/tests/test_%,resize_while_multiplying resize_while_talking)
REPLAYS = $(patsubst %,$(ASAN)/fuzz/%,reader compressor examples published tokenizer folder files)
define SANITIZED_RULES # folder, sanitizers. Of the archive a program takes what it needs.
$(1)/bitstack.o: bitstack.h
	@mkdir -p $$(@D)
	$$(CC) $$(SANITIZED) -fsanitize=$(2) -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c $$< -o $$@
$(1)/bitstack_compress.o: bitstack_compress.h bitstack.h
	@mkdir -p $$(@D)
	$$(CC) $$(SANITIZED) -fsanitize=$(2) -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c $$< -o $$@
$(1)/%.o: examples/%.c $$(wildcard examples/bitstack/*.h examples/llm/*.h) $$(HEADERS)
	@mkdir -p $$(@D)
	$$(CC) $$(SANITIZED) -fsanitize=$(2) -c $$< -o $$@
$(1)/all.a: $$(addprefix $(1)/,$$(SAME))
	@rm -f $$@
	ar rcs $$@ $$^
$(1)/tests/%: tests/%.c $$(wildcard tests/*.h) $(1)/all.a
	@mkdir -p $$(@D)
	$$(CC) $$(SANITIZED) -fsanitize=$(2) $$< $(1)/all.a -o $$@ $$(LIBS)
$(1)/fuzz/%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $$(wildcard tests/fuzz/*.h) $(1)/all.a
	@mkdir -p $$(@D)
	$$(CC) $$(SANITIZED) -fsanitize=$(2) $$< tests/fuzz/replay.c $$(if $$(filter %/compressor,$$@),,$(1)/all.a) -o $$@ $$(LIBS)
endef
comma = ,
$(eval $(call SANITIZED_RULES,$(ASAN),address$(comma)undefined))
$(eval $(call SANITIZED_RULES,$(TSAN),thread))
sanitized: $(ASAN_TESTS) $(TSAN_TESTS) $(REPLAYS)

# Everything is built on all processors before the first test runs, quietly unless V=1.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
QUICKLY = $(MAKE) $(if $(V),,-s) $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))
PROGRAMS = $(BUILD)/tests/test_whole_model $(filter-out %/test_whole_model,$(TESTS))
tests: all $(TESTS) $(REAL) $(BUILD)/tests/random_stack $(BUILD)/libbitstack.so $(BUILD)/libbitstack.a $(BUILD)/bench/gemv
test:
	@+$(QUICKLY) tests sanitized
	@tests/run.sh $(wildcard tests/test_*.sh) $(PROGRAMS)

# Everything in tests/README.md: all platforms, coverage, planted bugs, fuzzers. About half an hour on two cores.
test-full:
	@+$(QUICKLY) tests
	@BITSTACK_FULL=1 TEST_LIMIT=0 tests/run.sh tests/test_everywhere.sh tests/mutants.sh tests/test_sanitizers.sh tests/test_fuzz.sh tests/coverage.sh \
	    $(filter-out %_everywhere.sh %_sanitizers.sh %_fuzz.sh,$(wildcard tests/test_*.sh)) $(PROGRAMS)
test-table: # the figures of the last full run into tests/README.md
	tests/table.sh

# A stack of the model in examples/models, calibrated on text that the model writes itself.
demo: $(BUILD)/bitstack $(BUILD)/demo
	$(BUILD)/bitstack compress examples/models/books-6m-f16.gguf -o $(BUILD)/books.bitstack --calibrate-self 4096 --levels 4
	$(BUILD)/demo examples/models/books-6m-f16.gguf $(BUILD)/books.bitstack

# The bare-metal example; needs arm-none-eabi-gcc and qemu-system-arm.
embedded:
	$(MAKE) -C examples/embedded

# Kernels: the library as users build it, the baselines at -O3. BENCH=full measures everything.
BENCH_CFLAGS ?= -O3 -g
BENCH_C = $(BUILD)/bench/bench.o $(patsubst bench/%.c,$(BUILD)/bench/%.o,$(wildcard bench/baseline_*.c))
ifdef GGML_DIR # a built ggml to run beside: GGML_DIR/include, libraries in GGML_BUILD
GGML_BUILD ?= $(GGML_DIR)/build
BENCH_CFLAGS += -DBENCH_GGML -isystem $(GGML_DIR)/include
BENCH_LIBS = -L$(GGML_BUILD)/src -lggml-cpu -lggml-base -Wl,-rpath,$(GGML_BUILD)/src
endif
BENCH_PROGRAMS = $(BUILD)/bench/gemv $(BUILD)/bench/gemm $(BUILD)/bench/plot
BENCH_FLAGS = $(filter-out $(CFLAGS),$(FLAGS)) $(BENCH_CFLAGS) -DBENCH_FLAGS='"library $(CFLAGS), baselines $(filter -O%,$(BENCH_CFLAGS))"'
$(BUILD)/bench/%.o: bench/%.c bench/bench.h bitstack.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_FLAGS) -c $< -o $@
$(BENCH_PROGRAMS): $(BUILD)/bench/%: $(BUILD)/bench/%.o $(BENCH_C) $(BUILD)/bitstack.o
	$(CC) $(BENCH_FLAGS) $^ -o $@ $(LIBS) $(BENCH_LIBS) -ldl

# Quality: the coding against its targets, and against what people would use instead.
$(BUILD)/bench/demo.o $(BUILD)/bench/quality.o $(BUILD)/bench/compare.o: bench/demo.h bench/peers/peer.h $(HEADERS)
$(BUILD)/bench/quality: $(BUILD)/bench/quality.o $(BUILD)/bench/demo.o $(PEERS) $(LLM) $(LIB)
	$(CC) $(FLAGS) $^ -o $@ $(LIBS)
$(BUILD)/bench/compare: $(BUILD)/bench/compare.o $(BUILD)/bench/demo.o $(BENCH_C) $(PEERS) $(LLM) $(LIB)
	$(CC) $(BENCH_FLAGS) $^ -o $@ $(LIBS) $(BENCH_LIBS) -ldl
$(BUILD)/bench/report: bench/report.c bench/svg.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< -o $@ -lm
# A real model as the measure: bench/real.
$(BUILD)/bench/real: bench/real/measure.c bench/peers/peer.h $(PEERS) $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -Ibench $< $(PEERS) $(LLM) $(LIB) -o $@ $(LIBS)
$(BUILD)/bench/speed: bench/real/speed.c $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $^ -o $@ $(LIBS)
# Models of random weights in the shapes of real ones; loading and resizing: bench/README.md.
$(BUILD)/bench/shapes: bench/shapes.c bench/shapes.h $(wildcard tests/*.h) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< $(LIB) -o $@ $(LIBS)
$(BUILD)/bench/latency: bench/latency.c $(wildcard tests/*.h) $(filter-out %/main.o,$(COMMAND)) $(LLM) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< $(filter-out %/main.o,$(COMMAND)) $(LLM) $(LIB) -o $@ $(LIBS)
$(BUILD)/bench/real_report: bench/real/report.c bench/svg.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $< -o $@ -lm
# Fetches, builds llama.cpp, compresses, measures. QUICK=1: a few sizes on few tokens. Choices: bench/real/run.sh.
real: $(BUILD)/bench/real $(BUILD)/bench/speed $(BUILD)/bench/real_report $(BUILD)/bitstack
	BUILD=$(BUILD) bench/real/run.sh
	[ -n "$(QUICK)" ] || $(BUILD)/bench/real_report bench/results README.md bench/README.md
# Rows that the CSV files have are not measured again: remove them for a fresh run.
compare: $(BUILD)/bench/compare $(BUILD)/bench/report $(BUILD)/bitstack
	@mkdir -p bench/results
	$(BUILD)/bench/compare demo bench/results/compare-demo.csv
	$(BUILD)/bitstack compress examples/models/books-6m-f16.gguf -o $(BUILD)/compare.bitstack --calibrate ../shared/models/calibration.txt
	$(BUILD)/bench/compare stack bench/results/compare-demo.csv ../shared $(BUILD)/compare.bitstack
	$(BUILD)/bench/compare 4096 bench/results/compare-4096.csv
	$(BUILD)/bench/report bench/results bench/README.md bench/peers/README.md
readme: $(BUILD)/bench/report $(BUILD)/bench/real_report
	$(BUILD)/bench/report bench/results bench/README.md bench/peers/README.md
	$(BUILD)/bench/real_report bench/results README.md bench/README.md
readme-check: $(BUILD)/bench/report $(BUILD)/bench/real_report
	$(BUILD)/bench/report --check bench/results bench/README.md bench/peers/README.md
	$(BUILD)/bench/real_report --check bench/results README.md bench/README.md
quality: $(BUILD)/bench/quality
	@mkdir -p bench/results
	$(BUILD)/bench/quality bench/results/quality.csv

bench: $(BENCH_PROGRAMS)
	$(BUILD)/bench/gemv $(BUILD)/bench/gemv.csv
	$(BUILD)/bench/gemm $(BUILD)/bench/gemm.csv
	$(BUILD)/bench/plot $(BUILD)/bench/gemv.csv $(BUILD)/bench/roofline.svg
bench-results: $(BENCH_PROGRAMS)
	@mkdir -p bench/results
	BENCH=full $(BUILD)/bench/gemv bench/results/gemv.csv
	BENCH=full $(BUILD)/bench/gemm bench/results/gemm.csv
	$(BUILD)/bench/plot bench/results/gemv.csv bench/results/roofline.svg
	bench/mca.sh > bench/results/mca.txt
	bench/report.sh results/gemv.csv results/gemm.csv results/mca.txt

# Memory and time of compressing a model of eight billion weights: one of its layers, 3 GB of disk.
# SHAPE=1b LAYERS=0: all of one in the shape of Llama 3.2 1B.
bench-memory: $(BUILD)/bitstack bench/shapes.h
	@mkdir -p $(BUILD)/bench
	$(CC) $(FLAGS) bench/memory.c -o $(BUILD)/bench/memory
	$(BUILD)/bench/memory $(BUILD)/bench $(or $(SHAPE),8b) $(or $(LAYERS),1) --compress-embeddings no --memory 4GB

# The library for those who do not copy the headers. Other ways in: packaging/README.md.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
VERSION = $(shell sed -n 's/^\#define BITSTACK_VERSION "\(.*\)"/\1/p' bitstack.h)
SONAME = libbitstack.so.$(basename $(VERSION))
PACKAGE = $(LIBDIR)/pkgconfig/bitstack.pc $(LIBDIR)/cmake/bitstack/bitstackConfig.cmake $(LIBDIR)/cmake/bitstack/bitstackConfigVersion.cmake
INSTALLED = $(BINDIR)/bitstack $(addprefix $(INCLUDEDIR)/,$(HEADERS)) $(LIBDIR)/libbitstack.a \
    $(addprefix $(LIBDIR)/,libbitstack.so.$(VERSION) $(SONAME) libbitstack.so) $(PACKAGE) $(MANDIR)/man1/bitstack.1 $(COMPLETIONDIR)/bitstack
shared: $(BUILD)/libbitstack.so
$(BUILD)/shared/%.o: packaging/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -DBITSTACK_POOL -fPIC -c $< -o $@
$(BUILD)/libbitstack.so: $(BUILD)/shared/bitstack.o $(BUILD)/shared/bitstack_compress.o
	$(CC) $(FLAGS) -shared -Wl,-soname,$(SONAME) $^ -o $@ $(LIBS)
$(BUILD)/libbitstack.a: $(BUILD)/shared/bitstack.o $(BUILD)/shared/bitstack_compress.o
	@rm -f $@
	ar rcs $@ $^
# The runtime for browsers and node: clang, lld and wasi-libc (Debian: lld wasi-libc libclang-rt-dev-wasm32).
WASM_CC ?= clang --target=wasm32-wasi --sysroot=/usr
WASM_FLAGS ?= -msimd128 # and -mrelaxed-simd, where the engine has it, with clang 16 or later
WASM_MODULE = -mexec-model=reactor -Wl,--strip-all,--export=malloc,--export=free
wasm: $(BUILD)/bitstack.wasm
$(BUILD)/bitstack.wasm: packaging/bitstack.c bitstack.h
	@mkdir -p $(@D)
	$(WASM_CC) -std=c11 $(WARN) -O2 $(WASM_FLAGS) -I. -DBITSTACK_NO_THREADS -DBITSTACK_NO_STDIO $(WASM_MODULE) \
	    $$(sed -n 's/^BITSTACK_API[^(]*[ *]\(bitstack_[a-z0-9_]*\)(.*/-Wl,--export-if-defined=\1/p' bitstack.h | sort -u) $< -o $@
$(BUILD)/minimal_cpp: examples/minimal.cpp bitstack.h
	@mkdir -p $(@D)
	$(CXX) -std=c++11 -Wall -Wextra -Wpedantic $(CFLAGS) -I. $< -o $@ -pthread
$(BUILD)/bitstack.1: packaging/man.sh $(BUILD)/bitstack
	packaging/man.sh $(BUILD)/bitstack >$@.new && mv $@.new $@
install: $(BUILD)/bitstack $(BUILD)/bitstack.1 $(BUILD)/libbitstack.so $(BUILD)/libbitstack.a
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(INCLUDEDIR) $(MANDIR)/man1 $(COMPLETIONDIR) $(sort $(dir $(PACKAGE))))
	install -m 644 $(BUILD)/bitstack.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 packaging/bitstack.bash $(DESTDIR)$(COMPLETIONDIR)/bitstack
	install -m 755 $(BUILD)/bitstack $(DESTDIR)$(BINDIR)
	install -m 644 $(HEADERS) $(DESTDIR)$(INCLUDEDIR)
	install -m 644 $(BUILD)/libbitstack.a $(DESTDIR)$(LIBDIR)
	install -m 755 $(BUILD)/libbitstack.so $(DESTDIR)$(LIBDIR)/libbitstack.so.$(VERSION)
	ln -sf libbitstack.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libbitstack.so
	@for file in $(PACKAGE); do \
	    sed 's,@PREFIX@,$(PREFIX),; s,@LIBDIR@,$(LIBDIR),; s,@INCLUDEDIR@,$(INCLUDEDIR),; s,@VERSION@,$(VERSION),' \
	        "packaging/$${file##*/}.in" >"$(DESTDIR)$$file" && chmod 644 "$(DESTDIR)$$file" || exit 1; done
uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	-rmdir $(DESTDIR)$(LIBDIR)/cmake/bitstack 2>/dev/null

clean:
	rm -rf $(BUILD)

.PHONY: install uninstall shared wasm all tests sanitized test test-full test-table demo bench bench-results quality compare real readme readme-check clean
