// minimal.mjs - a stack from JavaScript, in node or a browser: build/bitstack.wasm (make wasm), typed arrays in and out.
//     node examples/minimal.mjs build/bitstack.wasm model.bitstack 3000000 blk.0.attn_q.weight

export class Stack {
    // module: WebAssembly.Module; bytes: Uint8Array, copied; budget in bytes, 0: all of it
    static async open(module, bytes, budget = 0) {
        const stack = new Stack();
        stack.c = (await WebAssembly.instantiate(module, {})).exports;
        stack.c._initialize?.();
        stack.error = stack.c.malloc(176); // bitstack_error
        const to = stack.c.malloc(bytes.length + 64), at = (to + 63) & ~63; // tensors are then aligned to 64 bytes
        const out = stack.c.malloc(4);
        if (!to || !out) throw new Error("out of memory");
        new Uint8Array(stack.c.memory.buffer).set(bytes, at);
        const options = stack.c.malloc(64); // bitstack_options: an allocator of three pointers, padded; then the budget
        new Uint8Array(stack.c.memory.buffer).fill(0, options, options + 64);
        stack.view.setBigUint64(options + 16, BigInt(budget), true);
        stack.check(stack.c.bitstack_open_memory(out, at, bytes.length, options, stack.error));
        stack.stack = stack.view.getUint32(out, true);
        return stack;
    }
    get view() { return new DataView(this.c.memory.buffer); } // anew: the memory may have grown
    text(at, bytes) {
        const all = new Uint8Array(this.c.memory.buffer, at);
        return new TextDecoder().decode(all.slice(0, bytes ?? all.indexOf(0)));
    }
    check(result) {
        if (result) throw new Error(this.text(this.error + 16));
    }
    set budget(bytes) { this.check(this.c.bitstack_set_budget(this.stack, BigInt(bytes), this.error)); }
    get resident() { return Number(this.c.bitstack_resident_bytes(this.stack)); }
    get isa() { return this.text(this.c.bitstack_isa()); }
    matrix(name) { // its index, and what it is now
        const utf8 = new TextEncoder().encode(name + "\0"), at = this.c.malloc(utf8.length), m = this.c.malloc(72);
        new Uint8Array(this.c.memory.buffer).set(utf8, at);
        const index = this.c.bitstack_find_matrix(this.stack, at), result = this.c.bitstack_get_matrix(this.stack, index, m);
        const [rows, cols, levels] = [0, 4, 8].map((field) => this.view.getUint32(m + 8 + field, true)); // bitstack_shape
        const level = this.view.getUint32(m + 52, true);
        this.c.free(at), this.c.free(m);
        if (result) throw new Error(`no matrix '${name}'`);
        return { index, rows, cols, levels, level };
    }
    multiply(name, x) { // y = W x
        const m = this.matrix(name), from = this.c.malloc(4 * m.cols), to = this.c.malloc(4 * m.rows);
        if (x.length !== m.cols) throw new Error("as many inputs as columns");
        new Float32Array(this.c.memory.buffer, from, m.cols).set(x);
        this.c.bitstack_gemv(this.stack, m.index, from, to);
        const y = new Float32Array(this.c.memory.buffer, to, m.rows).slice();
        this.c.free(from), this.c.free(to);
        return y;
    }
}

if (globalThis.process?.argv[1]?.endsWith("minimal.mjs")) {
    const { readFile } = await import("node:fs/promises");
    const [module, path, budget, name] = process.argv.slice(2);
    const stack = await Stack.open(await WebAssembly.compile(await readFile(module)), await readFile(path), Number(budget));
    const m = stack.matrix(name), y = stack.multiply(name, new Float32Array(m.cols).fill(1));
    console.log(`${name}: ${m.rows} x ${m.cols}, level ${m.level} of ${m.levels}, ${stack.resident} bytes resident`);
    const shown = (v) => Number(v.toPrecision(6)); // as %g
    y.slice(0, 4).forEach((value, i) => console.log(`y[${i}] = ${shown(value)}`));
}
