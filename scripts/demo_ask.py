#!/usr/bin/env python3
"""Asks `msa ask --json` some questions and prints answers, cited documents, and what each stage cost.

Usage: demo_ask.py --msa PROGRAM --questions FILE.jsonl [--count N] [question…]
"""
import argparse
import json
import subprocess
import sys
import textwrap

WIDTH = 110


def ask(program, question):
    result = subprocess.run([program, "ask", question, "--json"], stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"error: msa ask failed on: {question}")
    return json.loads(result.stdout)


def excerpt(text, answers):
    """About 200 characters of the text, around the expected answer where it occurs."""
    text = " ".join(text.split())
    at = next((text.find(a) for a in answers if a in text), 0)
    start = text.rfind(" ", 0, max(0, at - 80)) + 1 if at > 80 else 0
    return ("… " if start else "") + textwrap.shorten(text[start:], 200, placeholder=" …")


def show(number, question, expected, gold, reply):
    print(f"\n{number}. {question}")
    print(textwrap.fill(reply["answer"].strip(), WIDTH, initial_indent="   → ", subsequent_indent="     "))
    for document in reply["documents"]:
        mark = " (the passage that holds the answer)" if document["external_id"] in gold else ""
        print(f"     cites [{document['id']}] {document['external_id']}, hop {document['hop']}{mark}")
        print(textwrap.fill(excerpt(document["text"], expected), WIDTH, initial_indent="       ",
                            subsequent_indent="       "))
    if expected:
        print(f"     expected: {' | '.join(expected)}")


def rate(tokens, ms):
    return f"{tokens / ms * 1000:,.0f} tok/s" if ms > 0 else "–"


def show_costs(replies):
    count = len(replies)
    hops = [hop for reply in replies for hop in reply["hops"]]
    tokens = sum(reply["tokens"]["answer"] for reply in replies)
    answer_ms = sum(reply["ms"]["answer"] for reply in replies)
    print(f"\n{count} questions, {len(hops)} hops; mean of each question:")
    print(f"  load the model and the bank  {sum(r['ms'].get('load', 0) for r in replies) / count:8.0f} ms")
    print(f"  read the question and hops   {sum(h['ms']['prefill'] for h in hops) / count:8.0f} ms")
    print(f"    of this routing            {sum(h['ms']['route'] for h in hops) / count:8.0f} ms")
    print(f"  read the best candidates     {sum(h['ms']['rerank'] for h in hops) / count:8.0f} ms")
    print(f"  write document ids           {sum(h['ms']['decode'] for h in hops) / count:8.0f} ms")
    print(f"  write the answer             {answer_ms / count:8.0f} ms   {rate(tokens, answer_ms)}")
    print(f"  all but loading              {sum(r['ms']['total'] for r in replies) / count:8.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msa", required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("own", nargs="*", help="questions of your own, asked instead")
    args = parser.parse_args()
    if args.own:
        questions = [{"text": text, "answers": [], "documents": []} for text in args.own]
    else:
        with open(args.questions, encoding="utf-8") as file:
            questions = [json.loads(line) for line in file][:args.count]
    replies = []
    for number, question in enumerate(questions, start=1):
        reply = ask(args.msa, question["text"])
        replies.append(reply)
        show(number, question["text"], question["answers"], question["documents"], reply)
        sys.stdout.flush()
    if replies:
        show_costs(replies)


if __name__ == "__main__":
    main()
