"""What scripts/train/ask_questions.py learns from and keeps. Usage: ask_questions_test.py ASK_QUESTIONS

The model itself needs torch and a GPU: here its answers are given.
"""
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

spec = importlib.util.spec_from_file_location("ask_questions", sys.argv[1])
ask = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ask)

text = "Bern\nThe old town of Bern was founded in 1191 by Duke Berthold V of Zähringen."
good = ask.parse(" Duke Berthold V\nQuestion: Who founded the town of Bern?", text, set())
assert good == ("Who founded the town of Bern?", "Duke Berthold V"), good
refused = {
    "no question": " Duke Berthold V",
    "an empty answer": " \nQuestion: Who founded the town of Bern?",
    "an answer that the text lacks": " Duke Berthold VI\nQuestion: Who founded the town of Bern?",
    "an answer within the question": " Bern\nQuestion: When was Bern founded by a duke?",
    "too short a question": " 1191\nQuestion: Founded when?",
    "a long answer": " The old town of Bern was founded in 1191\nQuestion: What is this text all about?",
    "a second line": " 1191\nQuestion: When was the town founded?\nAnswer: 1191",
}
for what, written in refused.items():
    assert ask.parse(written, text, set()) is None, what
assert ask.parse(" 1191\nQuestion: When was the town founded?", text, {"when was the town founded"}) is None
# "191" is within "1191" and not a word of the question.
assert ask.parse(" 1191\nQuestion: What happened in house 119 of the town?", text, set()) is not None


def write_set(folder, documents, questions):
    folder.mkdir()
    lines = lambda objects: "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)
    (folder / "corpus.jsonl").write_text(lines(documents), encoding="utf-8")
    (folder / "queries.jsonl").write_text(lines(q for q, _ in questions), encoding="utf-8")
    gold = "".join(f"{q['_id']}\t{d}\t1\n" for q, d in questions)
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + gold, encoding="utf-8")


with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    documents = [{"_id": "d0", "title": "Bern", "text": "Founded in 1191."}, {"_id": "d1", "title": "Aare", "text": "A river."}]
    question = lambda id_, words, answer, type_: {"_id": id_, "text": words, "answers": [answer], "type": type_}
    write_set(place / "one", documents, [(question("q0", "When was Bern founded?", "1191", "a"), "d0"),
                                         (question("q1", "What is the Aare?", "river", "b"), "d1"),
                                         (question("q2", "How long is the Aare?", "288 km", "a"), "d1")])
    questions, titles = ask.held_out([place / "one"])
    assert questions == {"when was bern founded", "what is the aare", "how long is the aare"}, questions
    assert titles == {"bern", "aare"}, titles
    learnt = ask.examples_of(str(place / "one"), "search", set())
    assert learnt == [("Bern\nFounded in 1191.", "search", "When was Bern founded?", "1191"),
                      ("Aare\nA river.", "search", "What is the Aare?", "river")], learnt
    assert [e[3] for e in ask.examples_of(f"{place / 'one'}=b", "question", set())] == ["river"]
    assert [e[3] for e in ask.examples_of(str(place / "one"), "question", {"when was bern founded"})] == ["river"]
    try:
        ask.examples_of(f"{place / 'one'}=c", "question", set())
    except SystemExit as error:
        assert "has no question" in str(error), error
    else:
        raise AssertionError("a set without questions was taken")
    ask.write(place / "out", documents, [(1, "search", "what is the aare near bern", "river")], 1)
    assert (place / "out" / "qrels.tsv").read_text().splitlines()[1] == "a1-0\td1\t1"
    kept = json.loads((place / "out" / "queries.jsonl").read_text())
    assert kept == {"_id": "a1-0", "text": "what is the aare near bern", "answers": ["river"], "type": "search"}, kept
    # Parts are joined with cat: one header, no id twice.
    ask.write(place / "more", documents, [(0, "question", "When was Bern founded?", "1191")], 2)
    assert (place / "more" / "qrels.tsv").read_text() == "a2-0\td0\t1\n"

    for wrong in ("3", "0/2", "3/2"):
        run = subprocess.run([sys.executable, sys.argv[1], str(place / "one"), str(place / "out"), "--model", "m", "--learn",
                              str(place / "one"), "--part", wrong], capture_output=True, text=True, check=False)
        assert run.returncode == 1 and f"--part {wrong}" in run.stderr, (wrong, run.stderr)
print("ask_questions: ok")
