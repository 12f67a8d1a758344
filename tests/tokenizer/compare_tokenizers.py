"""Same tokens as Hugging Face tokenizers, on strings made from a seed.

usage: compare_tokenizers.py TOKENIZER_DUMP MODEL.gguf SOURCE_DIR [--seed N] [--strings N]
Three tokenizers: the model's as its GGUF file holds it, the same written as tokenizer.json, and a small one of Qwen's
kind (Split by regular expression, NFC) trained here. Needs the packages tokenizers and gguf, and the program zstd;
exits 77 (skipped) with the reason when something is missing.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

SKIPPED = 77
QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# Blocks whose characters the random strings draw from; only characters that Unicode 14 assigns, as PCRE2 10.42,
# Oniguruma 6.9.8 and libunistring 1.0 know no later ones.
BLOCKS = [(0x00, 0x7F), (0x80, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x6FF), (0x700, 0x8FF), (0x900, 0xDFF),
          (0xE00, 0xFFF), (0x1000, 0x11FF), (0x1200, 0x1FFF), (0x2000, 0x2BFF), (0x2C00, 0x2FFF), (0x3000, 0x33FF),
          (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xF8FF), (0xF900, 0xFFFF), (0x10000, 0x10FFF),
          (0x11000, 0x12FFF), (0x16000, 0x1BFFF), (0x1D000, 0x1D7FF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FAFF),
          (0x20000, 0x2A6DF), (0x2F800, 0x2FA1F), (0xE0000, 0xE01EF)]
SPACES = (" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b"
          "\u2028\u2029\u202f\u205f\u3000\ufeff")
FIXED = ["", " ", "\r\n", "a\r\nb\r\n", "'s 'S 'll 'LL '\u017f '\u212a it's IT'S we\u2019re", "x've'd'm",
         "0123456789" * 40,
         "a1b2c3 \u0661\u0662\u0663 \u00bd \u2167 \u3007",
         "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
         "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1e9\U0001f1ea", "e\u0301 \u00e9 a\u0323\u0307 a\u0307\u0323 \u1e69",
         "\u1100\u1161\u11a8 \uac01", "\u0344\u0958\u2126\u212b\uf900\ufb1d\U0002f800",
         "\x00\x01\x04\x06\x13\x14\x16\x1d",
         "<|im_start|>user\nhi<|im_end|>", "<|im_start|", "<file_sep><issue_closed>x<|endoftext|>", "<tool><tool_call>",
         "a" * 3000, " " * 3000, "\n" * 3000, "ab" * 3000, "\u0301\u0323" * 500]


def skip(reason):
    print("skipped:", reason)
    sys.exit(SKIPPED)


try:
    import gguf
    import tokenizers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
except ImportError as error:
    skip(f"{error}; the CMake variable MSA_PYTHON names a python3 that has tokenizers and gguf")


def smollm_tokenizer(path):
    """The tokenizer of the default model's GGUF file, as tokenizers has it."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    result = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    result.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    result.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return result


def qwen_tokenizer(texts):
    result = Tokenizer(models.BPE())
    result.normalizer = normalizers.NFC()
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    result.decoder = decoders.ByteLevel()
    result.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=6000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    result.add_special_tokens([AddedToken(t, special=True, normalized=False)
                               for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    result.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<tool_call>", normalized=False),
                       AddedToken("e\u0301x", normalized=True)])
    return result


def corpus_texts(source):
    path = os.path.join(source, "data", "demo", "corpus.jsonl.zst")
    if not os.path.exists(path):
        return []
    lines = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout.decode().splitlines()
    return [json.loads(line)["text"] for line in lines]


def source_texts(source):
    texts = []
    for folder in ("src", "tests", "docs", "scripts"):
        for root, folders, files in os.walk(os.path.join(source, folder)):
            folders.sort()
            for name in sorted(files):
                if name.endswith((".h", ".cc", ".cu", ".py", ".md", ".txt", ".sh", ".cmake")):
                    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
                        texts.append(file.read())
    return texts


class Strings:
    """Random byte strings, each of one kind."""

    def __init__(self, rng, texts):
        self.rng = rng
        self.texts = texts
        self.blocks = [[c for c in map(chr, range(a, b + 1)) if unicodedata.category(c) not in ("Cn", "Cs")]
                       for a, b in BLOCKS]
        every = [c for block in self.blocks for c in block]
        self.marks = [c for c in every if unicodedata.combining(c)]
        self.numbers = [c for c in every if unicodedata.category(c).startswith("N")]
        self.emoji = [c for c in self.blocks[23] if unicodedata.category(c) == "So"]
        self.kinds = [self.slice, self.slice, self.slice, self.one_script, self.mixed, self.zwj, self.marked, self.runs,
                      self.quotes, self.random_bytes, self.damaged, self.control]

    def draw(self):
        return self.rng.choice(self.kinds)()

    def some(self, choices, most):
        return "".join(self.rng.choices(choices, k=self.rng.randint(1, most)))

    def slice_text(self):
        text = self.rng.choice(self.texts)
        start = self.rng.randrange(max(1, len(text)))
        return text[start:start + self.rng.choice([8, 40, 200, 1000])]

    def slice(self):
        text = self.slice_text()
        return (text.replace("\n", "\r\n") if self.rng.random() < .2 else text).encode()

    def one_script(self):
        block = self.rng.choice(self.blocks)
        return "".join(self.rng.choice([*self.rng.choices(block, k=5), " "]) for _ in range(60)).encode()

    def mixed(self):
        return "".join(self.rng.choice(self.rng.choice(self.blocks)) for _ in range(self.rng.randint(1, 80))).encode()

    def zwj(self):
        return "".join(self.some(self.emoji, 2) + self.rng.choice(["\u200d", "\ufe0f", "\U0001f3fd", " ", ""])
                       for _ in range(self.rng.randint(1, 20))).encode()

    def marked(self):
        return "".join(self.some("aeiousznAEIOUSZN \u1100\u1161\u0915\u304b", 2) + self.some(self.marks, 4)
                       for _ in range(self.rng.randint(1, 25))).encode()

    def runs(self):
        parts = [self.rng.choice(SPACES) * self.rng.choice([1, 1, 2, 3, 100]) for _ in range(6)]
        parts += [self.some(self.numbers, 6), self.some("0123456789", 60), self.some("!?.,-_=+*/#@\n\r", 8)]
        parts += ["word", "W", "\u00e9t\u00e9"]
        self.rng.shuffle(parts)
        return "".join(parts).encode()

    def quotes(self):
        words = ["'s", "'S", "'t", "'re", "'VE", "'m", "'Ll", "'d", "'x", "'\u017f", "\u2019s", "I", " we",
                 "1", " ", "\n"]
        return self.some(words, 20).encode()

    def random_bytes(self):
        return self.rng.randbytes(self.rng.randint(1, 60))

    def damaged(self):
        data = bytearray((self.slice_text() + self.some(self.emoji, 3) + self.some(self.blocks[13], 5)).encode())
        for _ in range(self.rng.randint(1, 6)):
            at = self.rng.randrange(len(data))
            if self.rng.random() < .5:
                data[at] = self.rng.randrange(256)
            else:
                del data[at:at + self.rng.randint(1, 2)]
            data = data or bytearray(b"\xff")
        return bytes(data)

    def control(self):
        pieces = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<file_sep>", "<issue_closed>", "<tool>",
                  "<tool_call>", "<|im_", "|>", "<", "e\u0301x", "\u00e9x", "e\u0301", "text", " ", "\n", "<tool_"]
        return self.some(pieces, 15).encode()


def ask(program, path, requests):
    sent = b"".join(struct.pack("<II", special, len(data)) + data for special, data in requests)
    done = subprocess.run([program, path], input=sent, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in requests:
        n, = struct.unpack_from("<I", done, at)
        ids = list(struct.unpack_from(f"<{n}i", done, at + 4))
        at += 4 + 4 * n
        n, = struct.unpack_from("<I", done, at)
        yield ids, done[at + 4:at + 4 + n].decode()
        at += 4 + n


def compare(name, program, path, reference, requests):
    wrong = 0
    for (special, data), (ids, text) in zip(requests, ask(program, path, requests)):
        reference.encode_special_tokens = not special
        original = data.decode("utf-8", errors="replace")
        composed = unicodedata.normalize("NFC", original)
        if reference.normalizer and reference.normalizer.normalize_str(original) != composed:
            original = composed  # the NFC tables of tokenizers are those of Unicode 9: younger marks are out of order
        want = reference.encode(original, add_special_tokens=False).ids
        want_text = reference.decode(want, skip_special_tokens=False)
        # tokenizers takes the letters of added tokens for bytes: the token "e\u0301x" decodes to broken text there.
        if ids == want and (text == want_text or "e\u0301x" in text):
            continue
        wrong += 1
        if wrong <= 10:
            print(f"{name}: special={special} {data!r}\n  here {ids}\n  want {want}\n  {text!r}\n  {want_text!r}")
    print(f"{name}: {len(requests)} strings, {wrong} differ")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("gguf")
    parser.add_argument("source")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strings", type=int, default=20000)
    options = parser.parse_args()
    if not os.path.exists(options.gguf):
        skip(f"no model file {options.gguf}; scripts/fetch_model.sh fetches it")
    rng = random.Random(options.seed)
    print("seed", options.seed, "tokenizers", tokenizers.__version__)
    texts = source_texts(options.source) + corpus_texts(options.source)
    strings = Strings(rng, texts)
    requests = [(special, text.encode()) for text in FIXED for special in (0, 1)]
    requests += [(int(rng.random() < .5), strings.draw()) for _ in range(options.strings)]
    smollm, qwen = smollm_tokenizer(options.gguf), qwen_tokenizer(texts)
    with tempfile.TemporaryDirectory() as folder:
        smollm_json, qwen_json = os.path.join(folder, "smollm.json"), os.path.join(folder, "qwen.json")
        smollm.save(smollm_json)
        qwen.save(qwen_json)
        wrong = compare("gguf", options.program, options.gguf, smollm, requests)
        wrong += compare("smollm tokenizer.json", options.program, smollm_json, smollm, requests)
        wrong += compare("qwen tokenizer.json", options.program, qwen_json, qwen, requests)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
