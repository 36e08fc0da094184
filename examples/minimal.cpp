// minimal.cpp - a stack as a C++ object: closed when it goes, moved and not copied, failures thrown.
//     build/minimal_cpp model.bitstack 3000000 blk.0.attn_q.weight
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

class Stack {
    struct Close { void operator()(bitstack *s) const { bitstack_close(s); } };
    std::unique_ptr<bitstack, Close> stack;

public:
    explicit Stack(const std::string &path, uint64_t budget = 0) { // in bytes; 0: all of it
        bitstack *opened;
        bitstack_error error;
        bitstack_options options = {};
        options.budget = budget;
        if (bitstack_open_file(&opened, path.c_str(), &options, &error) != BITSTACK_OK)
            throw std::runtime_error(path + ": " + error.message);
        stack.reset(opened);
    }
    bitstack_matrix matrix(const std::string &name, int *index) const {
        bitstack_matrix m;
        *index = bitstack_find_matrix(stack.get(), name.c_str());
        if (bitstack_get_matrix(stack.get(), *index, &m) != BITSTACK_OK) throw std::out_of_range("no matrix '" + name + "'");
        return m;
    }
    std::vector<float> multiply(const std::string &name, const std::vector<float> &x) const { // y = W x
        int index;
        const bitstack_matrix m = matrix(name, &index);
        if (x.size() != m.shape.cols) throw std::invalid_argument(name + ": as many inputs as columns");
        std::vector<float> y(m.shape.rows);
        bitstack_gemv(stack.get(), index, x.data(), y.data());
        return y;
    }
    void budget(uint64_t bytes) { // other threads may go on multiplying
        bitstack_error error;
        if (bitstack_set_budget(stack.get(), bytes, &error) != BITSTACK_OK) throw std::runtime_error(error.message);
    }
    uint64_t bytes() const { return bitstack_resident_bytes(stack.get()); }
};

int main(int argc, char **argv) try {
    if (argc != 4) return std::fprintf(stderr, "usage: minimal_cpp FILE BYTES MATRIX\n"), 2;
    Stack stack(argv[1], std::stoull(argv[2]));
    int index;
    const bitstack_matrix m = stack.matrix(argv[3], &index);
    const std::vector<float> y = stack.multiply(argv[3], std::vector<float>(m.shape.cols, 1));
    std::printf("%s: %u x %u, level %u of %u, %llu bytes resident\n", argv[3], m.shape.rows, m.shape.cols, m.level,
                m.shape.levels, static_cast<unsigned long long>(stack.bytes()));
    for (size_t i = 0; i < y.size() && i < 4; i++) std::printf("y[%zu] = %g\n", i, static_cast<double>(y[i]));
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
