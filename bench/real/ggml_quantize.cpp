// A filter that sends matrices through ggml's own quantizers and back. Each record on the standard input: int32 type (of
// ggml), int64 rows, int64 cols, float importance[cols], float weights[rows * cols]; on the standard output the weights
// as they are after quantizing.
#include "ggml.h"
#include <cstdint>
#include <cstdio>
#include <vector>

static bool take(void *to, size_t bytes) { return fread(to, 1, bytes, stdin) == bytes; }

int main() {
    ggml_init_params parameters = {1 << 20, nullptr, true};
    ggml_init(parameters);
    int32_t type;
    int64_t rows, cols;
    while (take(&type, 4) && take(&rows, 8) && take(&cols, 8)) {
        std::vector<float> importance(cols), weights(rows * cols);
        if (!take(importance.data(), 4 * cols) || !take(weights.data(), 4 * rows * cols)) return 1;
        std::vector<uint8_t> packed(ggml_row_size((ggml_type)type, cols) * rows);
        ggml_quantize_init((ggml_type)type);
        ggml_quantize_chunk((ggml_type)type, weights.data(), packed.data(), 0, rows, cols, importance.data());
        ggml_get_type_traits((ggml_type)type)->to_float(packed.data(), weights.data(), rows * cols);
        fwrite(weights.data(), 4, rows * cols, stdout);
        fflush(stdout);
    }
}
