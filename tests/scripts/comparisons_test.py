"""What scripts/train/comparisons.py makes is true of its documents. Usage: comparisons_test.py COMPARISONS"""
import collections
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

SEED = 5
rng = random.Random(SEED)
NATIONS = {"Danish": "Denmark", "Peruvian": "Peru", "Kenyan": "Kenya", "French": "France"}
born, nation, occupation, year, director, country, population = {}, {}, {}, {}, {}, {}, {}
corpus = []


def name():
    return " ".join("".join(rng.choice("aeiou") + rng.choice("bdfgklmnprst") for _ in range(3)).capitalize()
                    for _ in range(2))


def document(title, text):
    corpus.append({"_id": f"d{len(corpus)}", "title": title, "text": text})


def person(work):
    title, adjective = name(), rng.choice(sorted(NATIONS))
    born[title], nation[title], occupation[title] = rng.randrange(1900, 1960), adjective, work
    document(title, f"{title} (born 3 May {born[title]}) is a {adjective} {work}. A second sentence says little.")
    return title


def film():
    title, maker = name(), rng.choice(directors)
    year[title], director[title] = rng.randrange(1980, 2000), maker
    document(f"{title} (film)", f"{title} is a {year[title]} drama film directed by {maker} and starring nobody.")


def town():
    title, adjective = name(), rng.choice(sorted(NATIONS))
    country[title], population[title] = NATIONS[adjective], rng.randrange(1000, 90000)
    document(title, f"{title} is a town in northern {country[title]}. The town had a population of "
                    f"{population[title]:,} in 2011.")
    document(f"{title} Arena", f"{title} Arena is an indoor arena in {title}.")


def make(folder, source, *options):
    subprocess.run([sys.executable, sys.argv[1], str(source), str(folder), *options], check=True, capture_output=True)
    lines = lambda file: (folder / file).read_text(encoding="utf-8").splitlines()
    documents = {d["_id"]: d for d in map(json.loads, lines("corpus.jsonl"))}
    questions = list(map(json.loads, lines("queries.jsonl")))
    gold, wrong = collections.defaultdict(list), collections.defaultdict(list)
    for line in lines("qrels.tsv")[1:]:
        gold[line.split("\t")[0]].append(line.split("\t")[1])
    for line in lines("hard_negatives.tsv"):
        wrong[line.split("\t")[0]].append(line.split("\t")[1])
    return documents, questions, gold, wrong


def right(text, a, b):
    """The answer to a comparison by what the corpus was made from, None for kinds that are not judged here."""
    if a in born and re.search("elder|older|came earlier|born before|earlier date|born sooner|born earlier", text):
        return min(a, b, key=born.get)
    if a in born and re.search("junior|younger|birth came later|born after|later date|more recently|born later", text):
        return max(a, b, key=born.get)
    if re.search(r"nationalit|compatriots|nationals|countrymen", text) and not text.startswith("Between"):
        return "yes" if nation[a] == nation[b] else "no"
    if re.search(r"out before|earlier year of release", text):
        return min(a, b, key=year.get)
    if re.search(r"fewer|smaller|less populous", text) and a in population:
        return min(a, b, key=population.get)
    if "direct" in text and a in director:
        return "yes" if director[a] == director[b] else "no"
    return None


directors = [person("film director") for _ in range(12)]
for _ in range(60):
    person(rng.choice(("swimmer", "golfer", "gymnast")))
    film()
    town()
with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    (place / "in").mkdir()
    (place / "in" / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in corpus), encoding="utf-8")
    sizes = ("--documents", "250", "--comparisons", "600", "--chains", "200")
    documents, questions, gold, wrong = made = make(place / "a", place / "in", *sizes, "--seed", "7")
    judged = collections.Counter()
    for q in questions:
        first, second = (documents[d] for d in gold[q["_id"]])
        assert 4 <= len(wrong[q["_id"]]) <= 8 and not set(wrong[q["_id"]]) & set(gold[q["_id"]]), (q, SEED)
        assert all(d in documents for d in wrong[q["_id"]]), q
        if q["type"] == "chain":
            assert q["hops"] == gold[q["_id"]] and first["title"].removesuffix(" (film)") in q["text"], q
            assert q["answers"][0] in second["text"] and q["answers"][0] not in first["text"], (q, SEED)
            judged["chain"] += 1
            continue
        a, b = (d["title"].removesuffix(" (film)") for d in (first, second))
        assert a in q["text"] and b in q["text"] and "hops" not in q and q["answers"][0] in (a, b, "yes", "no"), q
        expected = right(q["text"], a, b)
        assert expected in (None, q["answers"][0]), (q, expected, first, second, SEED)
        judged["comparison"] += expected is not None
    assert judged["chain"] > 60 and judged["comparison"] > 100, judged

    compared = [q for q in questions if q["type"] == "comparison"]
    said = collections.Counter(q["answers"][0] for q in compared)
    assert abs(said["yes"] - said["no"]) < 0.1 * (said["yes"] + said["no"]), said
    named = [[documents[d]["title"].removesuffix(" (film)") for d in gold[q["_id"]]] for q in compared]
    first_right = [min(names, key=q["text"].find) == q["answers"][0] for q, names in zip(compared, named)
                   if q["answers"][0] in names]
    assert 0.45 < sum(first_right) / len(first_right) < 0.55, (sum(first_right), len(first_right), SEED)

    assert make(place / "b", place / "in", *sizes, "--seed", "7") == made
    assert make(place / "c", place / "in", *sizes, "--seed", "8")[1] != questions
    apart = make(place / "d", place / "in", *sizes, "--seed", "9", "--held-out", str(place / "a"))
    pairs = {frozenset(g) for g in gold.values()}
    assert apart[1] and not pairs & {frozenset(g) for g in apart[2].values()}
