"""What scripts/train/mean_adapters.py computes, and what it refuses. Usage: mean_adapters_test.py MEAN_ADAPTERS

Exit 77 (skipped) without the packages numpy and safetensors.
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file
except ImportError:
    print("skipped: numpy or safetensors is not installed")
    sys.exit(77)


def run(*arguments):
    command = [sys.executable, sys.argv[1], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(words, *arguments):
    done = run(*arguments)
    assert done.returncode == 1, (words, done.returncode, done.stderr)
    assert done.stderr.startswith("error: ") and "(fix: " in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    for name in ("a", "b", "out"):
        (place / name).mkdir()
    a, b, out = (place / name / "adapter.safetensors" for name in ("a", "b", "out"))
    # 60000 + 50016 is above the largest F16; the mean of 1 and the F16 after the next lies on the one between; that of
    # 1 and the next is a tie, which goes to the even one.
    ulp = 2.0**-10
    first = {"z.lora_A": np.array([[60000, 1], [1, -3]], np.float16), "router": np.array([0.5, 16777216.0], np.float32)}
    second = {"z.lora_A": np.array([[50016, 1 + 2 * ulp], [1 + ulp, 1]], np.float16),
              "router": np.array([0.25, 2.0], np.float32)}
    save_file(first, a, metadata={"format": "pt", "of": "a"})
    save_file(second, b, metadata={"format": "pt", "of": "b"})
    (a.parent / "adapter_config.json").write_text('{"r": 2}')

    done = run(a, b, out)
    assert done.returncode == 0 and "2 tensors" in done.stderr, done.stderr
    means = load_file(out)
    assert sorted(means) == ["router", "z.lora_A"], sorted(means)
    assert means["z.lora_A"].dtype == np.float16 and means["router"].dtype == np.float32
    assert means["z.lora_A"].tolist() == [[55008.0, 1 + ulp], [1.0, -1.0]], means["z.lora_A"].tolist()
    assert means["router"].tolist() == [0.375, 8388609.0], means["router"].tolist()
    with safe_open(out, framework="np") as written:
        assert written.metadata() == {"format": "pt", "of": "a"}, written.metadata()
    assert json.loads((out.parent / "adapter_config.json").read_text()) == {"r": 2}

    # A configuration that is there stays, and the order of the two matters to metadata alone.
    (out.parent / "adapter_config.json").write_text('{"r": 3}')
    assert run(a, b, out).returncode == 0
    assert json.loads((out.parent / "adapter_config.json").read_text()) == {"r": 3}
    other = place / "new" / "folder" / "mean.safetensors"
    assert run(b, a, other).returncode == 0
    assert all(np.array_equal(x, means[name]) for name, x in load_file(other).items())
    assert not (other.parent / "adapter_config.json").exists(), "b has none"

    kept = out.read_bytes()
    differing = place / "differing.safetensors"
    for tensors, words in (
        ({"z.lora_A": second["z.lora_A"]}, ["tensor router", "missing in " + str(differing)]),
        ({**second, "m": second["router"], "y": second["router"]}, ["tensor m ", "missing in " + str(a)]),
        ({**second, "z.lora_A": second["z.lora_A"][:1]}, ["tensor z.lora_A", "F16 [2, 2]", "F16 [1, 2]"]),
        ({**second, "router": second["router"].astype(np.float16)}, ["tensor router", "F32 [2]", "F16 [2]"]),
    ):
        save_file(tensors, differing)
        refused(words, a, differing, out)

    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    bf16 = place / "bf16.safetensors"
    bf16.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(["tensor w is BF16 [2]", str(bf16)], bf16, bf16, out)
    whole = {"w": np.array([1, 2], np.int32)}
    save_file(whole, differing)
    refused(["tensor w is I32 [2]"], differing, differing, out)

    absent, text = place / "absent.safetensors", place / "text.safetensors"
    text.write_text("no weights, just words that are longer than a header's length")
    cut = place / "cut.safetensors"
    cut.write_bytes(a.read_bytes()[:-1])
    for wrong in (absent, text, cut, place):
        refused([f"{wrong} cannot be read"], wrong, b, out)
        refused([f"{wrong} cannot be read"], a, wrong, out)
    refused(["cannot be written"], a, b, text / "mean.safetensors")
    assert out.read_bytes() == kept, "a refused pair changed the output"

    done = run(a, b)
    assert done.returncode == 1 and "usage:" in done.stderr, done.stderr
print("mean_adapters: ok")
