"""minimal.py - a stack from Python: ctypes on libbitstack.so, numpy arrays in and out.
    BITSTACK_LIBRARY=build/libbitstack.so python3 examples/minimal.py model.bitstack 3000000 blk.0.attn_q.weight"""
import ctypes as c
import os
import sys

import numpy as np

lib = c.CDLL(os.environ.get("BITSTACK_LIBRARY", "libbitstack.so.0.2"))
floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")


class Options(c.Structure):  # bitstack_options
    _fields_ = [("allocate", c.c_void_p), ("release", c.c_void_p), ("allocator_user", c.c_void_p), ("budget", c.c_uint64),
                ("precision", c.c_int), ("skip_checksums", c.c_int), ("load_nothing", c.c_int),
                ("run", c.c_void_p), ("run_user", c.c_void_p), ("threads", c.c_int)]


class Error(c.Structure):  # bitstack_error
    _fields_ = [("code", c.c_int), ("byte_offset", c.c_uint64), ("message", c.c_char * 160)]


class Matrix(c.Structure):  # bitstack_matrix, with bitstack_shape in its place
    _fields_ = [("name", c.c_void_p), ("name_bytes", c.c_size_t), ("rows", c.c_uint32), ("cols", c.c_uint32),
                ("levels", c.c_uint32), ("rank", c.c_uint32), ("group_cols", c.c_uint32), ("columns", c.c_int),
                ("coefficients", c.c_int), ("factor_type", c.c_int), ("scale", c.c_float), ("encoding", c.c_int),
                ("kept", c.c_uint32), ("level", c.c_uint32), ("resident_bytes", c.c_uint64), ("sensitivity", c.c_float)]


lib.bitstack_open_file.argtypes = [c.POINTER(c.c_void_p), c.c_char_p, c.POINTER(Options), c.POINTER(Error)]
lib.bitstack_close.argtypes = [c.c_void_p]
lib.bitstack_set_budget.argtypes = [c.c_void_p, c.c_uint64, c.POINTER(Error)]
lib.bitstack_find_matrix.argtypes = [c.c_void_p, c.c_char_p]
lib.bitstack_get_matrix.argtypes = [c.c_void_p, c.c_int, c.POINTER(Matrix)]
lib.bitstack_gemv.argtypes = [c.c_void_p, c.c_int, floats, floats]
lib.bitstack_dequantize.argtypes = [c.c_void_p, c.c_int, floats, c.c_size_t]
lib.bitstack_resident_bytes.argtypes, lib.bitstack_resident_bytes.restype = [c.c_void_p], c.c_uint64


class Stack:
    def __init__(self, path, budget=0):  # in bytes; 0: all of it
        self.stack, self.error, options = c.c_void_p(), Error(), Options(budget=budget)
        self.check(lib.bitstack_open_file(self.stack, os.fsencode(path), options, self.error))

    def __del__(self):
        lib.bitstack_close(self.stack)

    def check(self, result):
        if result:
            raise OSError(self.error.message.decode())

    def budget(self, size):
        self.check(lib.bitstack_set_budget(self.stack, size, self.error))

    def matrix(self, name):  # its index, and what it is now
        m, index = Matrix(), lib.bitstack_find_matrix(self.stack, name.encode())
        if lib.bitstack_get_matrix(self.stack, index, m):
            raise KeyError(name)
        return index, m

    def multiply(self, name, x):  # y = W x
        index, m = self.matrix(name)
        x, y = np.ascontiguousarray(x, np.float32), np.empty(m.rows, np.float32)
        assert x.shape == (m.cols,), "as many inputs as columns"
        lib.bitstack_gemv(self.stack, index, x, y)
        return y

    def weights(self, name):  # as they are at the level of now
        index, m = self.matrix(name)
        w = np.empty((m.rows, m.cols), np.float32)
        lib.bitstack_dequantize(self.stack, index, w, m.cols)
        return w


if __name__ == "__main__":
    path, budget, name = sys.argv[1:]
    stack = Stack(path, int(budget))
    _, m = stack.matrix(name)
    y = stack.multiply(name, np.ones(m.cols))
    print(f"{name}: {m.rows} x {m.cols}, level {m.level} of {m.levels}, {lib.bitstack_resident_bytes(stack.stack)} bytes resident")
    for i, value in enumerate(y[:4]):
        print(f"y[{i}] = {value:g}")
    assert np.allclose(stack.weights(name).sum(1), y, rtol=0.02, atol=0.02 * np.abs(y).max())
