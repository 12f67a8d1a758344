"""A small language model that learns to ask and to answer questions about a passage."""
import math
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList

PASSAGE_TOKENS = 320
TARGET_TOKENS = 48
SAMPLES_A_STEP = 64
RATE, WARM_STEPS = 3e-4, 20
PROMPTS_AT_ONCE = 2048
ENOUGH_ENDED = 0.98  # of a batch: the few that run on are given up
CHECKED_AT_ONCE = 256
TOP_K, TEMPERATURE = 50, 0.8


def ask_prompt(style):
    return f"\n[{style}]\nAnswer:"


def ask_target(answer, question):
    return f" {answer}\nQuestion: {question}"


def answer_prompt(question):
    return f"\nQuestion: {question}\nAnswer:"


def batches(rows, size):
    """Indices of the rows, the longest first, `size` at a time."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    return [order[begin:begin + size] for begin in range(0, len(order), size)]


class MostHaveEnded(StoppingCriteria):
    def __init__(self, end, prompt_tokens):
        self.end, self.prompt_tokens = end, prompt_tokens

    def __call__(self, ids, scores, **_):
        ended = (ids[:, self.prompt_tokens:] == self.end).any(1)
        return torch.ones_like(ended) if ended.float().mean() >= ENOUGH_ENDED else ended


class QuestionModel:
    """A causal model of transformers: a folder, or a .gguf file (package gguf), whose weights are all trained."""

    def __init__(self, path, device, seed):
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        self.device = device
        folder, options = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        self.end = self.tokenizer.eos_token_id
        self.model = AutoModelForCausalLM.from_pretrained(folder, **options).to(device=device, dtype=torch.float32)

    def tokens(self, text, most=None):
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens[:most]

    def prompt(self, text, rest):
        return self.tokens(text, PASSAGE_TOKENS) + self.tokens(rest)

    def sample(self, text, prompt, target):
        """Tokens of a sample and how many of the last are predicted."""
        predicted = self.tokens(target, TARGET_TOKENS) + [self.end]
        return self.prompt(text, prompt) + predicted, len(predicted)

    def batch(self, rows):
        """int64 [rows, longest] filled up on the left, and the mask."""
        longest = max(len(r) for r in rows)
        ids = torch.full((len(rows), longest), self.end, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, longest - len(row):] = torch.tensor(row)
            mask[i, longest - len(row):] = 1
        return ids.to(self.device), mask.to(self.device)

    def predictions(self, samples):
        """Logits F32 [predicted tokens of all samples, vocabulary] and the tokens themselves."""
        ids, mask = self.batch([tokens for tokens, _ in samples])
        most = max(n for _, n in samples)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        hidden = self.model.model(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state
        wanted = torch.zeros(len(samples), most, dtype=torch.bool, device=self.device)
        for i, (_, n) in enumerate(samples):
            wanted[i, most - n:] = True
        return self.model.lm_head(hidden[:, -most - 1:-1][wanted]).float(), ids[:, -most:][wanted]

    def autocast(self):
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda")

    def learn(self, examples, steps, report):
        """examples: (text, style, question, answer). Half the samples ask, half answer."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.01)
        self.model.train()
        order = []
        for step in range(steps):
            share = min((step + 1) / WARM_STEPS, 0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = RATE * share
            samples = []
            while len(samples) < SAMPLES_A_STEP:
                if not order:
                    order = self.random.sample(range(len(examples)), len(examples))
                text, style, question, answer = examples[order.pop()]
                if self.random.random() < 0.5:
                    samples.append(self.sample(text, ask_prompt(style), ask_target(answer, question)))
                else:
                    samples.append(self.sample(text, answer_prompt(question), f" {answer}"))
            with self.autocast():
                logits, tokens = self.predictions(samples)
                loss = torch.nn.functional.cross_entropy(logits, tokens)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % 50 == 0 or step + 1 == steps:
                report(f"step {step}: loss {loss.item():.3f}")
        self.model.eval()
        if self.device == "cuda":
            self.model.to(torch.bfloat16)

    @torch.inference_mode()
    def ask(self, texts, styles, report):
        """What the model writes behind each text's prompt: an answer, then a question to it; empty without an end."""
        rows = [self.prompt(text, ask_prompt(style)) for text, style in zip(texts, styles)]
        out = [""] * len(rows)
        for number, part in enumerate(batches(rows, PROMPTS_AT_ONCE)):
            ids, mask = self.batch([rows[i] for i in part])
            stop = StoppingCriteriaList([MostHaveEnded(self.end, ids.shape[1])])
            written = self.model.generate(input_ids=ids, attention_mask=mask, do_sample=True, top_k=TOP_K,
                                          temperature=TEMPERATURE, max_new_tokens=TARGET_TOKENS,
                                          eos_token_id=self.end, pad_token_id=self.end,
                                          stopping_criteria=stop)[:, ids.shape[1]:]
            ended = (written == self.end).any(1).tolist()
            texts_written = self.tokenizer.batch_decode(written, skip_special_tokens=True)
            for i, text, is_whole in zip(part, texts_written, ended):
                out[i] = text if is_whole else ""
            if number % 10 == 0:
                report(f"asked {number * PROMPTS_AT_ONCE + len(part)} of {len(rows)}")
        return out

    @torch.inference_mode()
    def would_answer(self, texts, questions, answers):
        """Whether greedy decoding answers each question on its text with exactly this answer."""
        samples = [self.sample(t, answer_prompt(q), f" {a}") for t, q, a in zip(texts, questions, answers)]
        out = [False] * len(samples)
        for part in batches([tokens for tokens, _ in samples], CHECKED_AT_ONCE):
            logits, tokens = self.predictions([samples[i] for i in part])
            right = (logits.argmax(1) == tokens).tolist()
            at = 0
            for i in part:
                out[i] = all(right[at:at + samples[i][1]])
                at += samples[i][1]
        return out
