#!/usr/bin/env python3
"""Questions over two documents, made from facts that introductions of an encyclopedia state: comparisons of two
entities ("Of A and B, who is the elder?", type "comparison") and chains ("On what date was the director of the film A
born?", type "chain", with hops). A training set (BEIR layout) from which routing learns to find both documents, and
reading to weigh them against each other.

usage: comparisons.py CORPUS OUTPUT [--documents N] [--comparisons N] [--chains N] [--held-out FOLDER]...
                      [--seed N]

CORPUS: a BEIR folder of introductions with titles. OUTPUT holds the documents of the questions and others, N in all,
and hard_negatives.tsv: entities of the same kind that bear a similar name, have the same maker, or any. The entity that
is named first is as often right as the other, and "yes" as often as "no". --held-out: an evaluation set, no two
documents of which that answer a question together make a question here. Wordings are this project's own: those of
multi-hop benchmarks stay unseen.
"""
import argparse
import collections
import itertools
import json
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import introductions
from beir_files import read_gold, read_lines, write_lines
from comparison_wordings import BOTH, CHAINS, FIRST, HOMES, LAST, ROLES, SAME, WHICH, WORKS
from introductions import NATIONS, OCCUPATIONS, bare, date_key, folded

WINDOWS = (20, 200, 2000)  # two are compared that lie at most so many apart in order of time or size
NAMED_ALONE = ("person", "film", "album", "song", "novel", "series", "game", "band")  # without what their title adds
BRITISH = ("British", "English", "Scottish", "Welsh")
NEGATIVES = 6  # of a question
SAME_ANSWER = 150  # chains of a kind with the same answer
Question = collections.namedtuple("Question", "type kind text answers gold")


def days(date):
    year, month, day = date_key(date)
    return 372 * year + 31 * month + day


class Comparisons:
    """Endless sources of questions about some entities; None where a pair drawn is of no use."""

    def __init__(self, entities, rng):
        self.rng, self.turn = rng, collections.Counter()
        self.by_kind = collections.defaultdict(list, grouped(entities, lambda e: e.kind))

    def fair(self, kind):
        """True and False in turn."""
        self.turn[kind] += 1
        return self.turn[kind] % 2 == 0

    def comparison(self, kind, templates, a, b, right, **words):
        """A question about both, in either order; right: the entity that answers it, or "yes" or "no"."""
        answer = right if isinstance(right, str) else right.name
        if not isinstance(right, str) and (b is right) == self.fair((kind, "order")):
            a, b = b, a
        text = self.rng.choice(templates).format(a=a.name, b=b.name, **words)
        return Question("comparison", kind, begun(text), [answer], [a.id, b.id])

    def order(self, kind, entities, value, least, wording=None, **words):
        """Which of two comes first; least: the difference below which values are too close."""
        entities = sorted(entities, key=lambda e: (value(e), e.id))
        while len(entities) > 1:
            i, window = self.rng.randrange(len(entities)), self.rng.choice(WINDOWS)
            j = i + self.rng.randint(1, window)
            if j >= len(entities) or value(entities[j]) - value(entities[i]) < least:
                yield None
                continue
            low, high = entities[i], entities[j]
            first = self.fair((kind, "direction"))
            templates, right = (FIRST, low) if first else (LAST, high)
            yield self.comparison(kind, templates[wording or kind], low, high, right, **words)

    def born(self):
        return self.order("born", self.by_kind["person"], lambda e: days(e.born), 1)

    def died(self):
        return self.order("died", [e for e in self.by_kind["person"] if e.died], lambda e: days(e.died), 1)

    def age(self):
        return self.order("age", [e for e in self.by_kind["person"] if e.died],
                          lambda e: days(e.died) - days(e.born), 372)

    def out(self, kind):
        return self.order(f"{kind} out", [e for e in self.by_kind[kind] if e.year], lambda e: e.year, 1, "out",
                          k=WORKS[kind])

    def founded(self, kind):
        return self.order(f"{kind} founded", [e for e in self.by_kind[kind] if e.year], lambda e: e.year, 1, "founded",
                          k=kind)

    def inhabitants(self):
        return self.order("inhabitants", [e for e in self.by_kind["place"] if e.population > 100],
                          lambda e: e.population, 200)

    def same(self, kind, entities, key, differ):
        """Do two have the same key?"""
        groups = grouped(entities, key)
        members = [e for group in groups.values() for e in group]
        while members:
            a, yes = self.rng.choice(members), self.rng.random() < 0.5
            b = self.rng.choice(groups[key(a)] if yes else members)
            if a is b or (not yes and not differ(a, b)):
                yield None
                continue
            yield self.comparison(kind, SAME[kind], a, b, "yes" if yes else "no")

    def same_nation(self):
        return self.same("nation", [e for e in self.by_kind["person"] if e.nation], lambda e: e.nation, unlike_nations)

    def same_country(self):
        return self.same("country", [e for e in self.by_kind["place"] if e.country], lambda e: e.country,
                         lambda a, b: not speaks_of_country(a, b.country) and not speaks_of_country(b, a.country))

    def same_director(self):
        films = [e for e in self.by_kind["film"] if single_name(e.maker)]
        return self.same("director", films, lambda e: single_name(e.maker),
                         lambda a, b: single_name(a.maker) not in b.text and single_name(b.maker) not in a.text)

    def both(self):
        """Had two the same occupation?"""
        groups = {o: [e for e in self.by_kind["person"] if o in e.occupations] for o in OCCUPATIONS}
        groups = {o: v for o, v in groups.items() if len(v) > 1}
        people = [e for e in self.by_kind["person"] if e.occupations]
        while groups:
            occupation = self.rng.choice(sorted(groups))
            plural, stems = OCCUPATIONS[occupation]
            a, yes = self.rng.choice(groups[occupation]), self.rng.random() < 0.5
            b = self.rng.choice(groups[occupation] if yes else people)
            if a is b or (not yes and re.search(rf"\b(?:{stems})", b.text, re.I)):
                yield None
                continue
            if self.fair(("both", "order")):
                a, b = b, a
            yield self.comparison("both", BOTH, a, b, "yes" if yes else "no", plural=plural)

    def which_occupation(self):
        people = [e for e in self.by_kind["person"] if e.occupations]
        while len(people) > 1:
            a, b = self.rng.sample(people, 2)
            occupation = self.rng.choice(a.occupations)
            yield (None if re.search(rf"\b(?:{OCCUPATIONS[occupation][1]})", b.text, re.I) else
                   self.comparison("which occupation", WHICH["occupation"], a, b, a, word=with_article(occupation)))

    def which_nation(self):
        people = [e for e in self.by_kind["person"] if e.nation]
        while len(people) > 1:
            a, b = self.rng.sample(people, 2)
            yield (self.comparison("which nation", WHICH["nation"], a, b, a, word=a.nation) if unlike_nations(a, b) else
                   None)

    def which_country(self):
        places = [e for e in self.by_kind["place"] if e.country]
        while len(places) > 1:
            a, b = self.rng.sample(places, 2)
            yield (None if speaks_of_country(b, a.country) else
                   self.comparison("which country", WHICH["country"], a, b, a, word=with_the(a.country)))

    def sources(self):
        """All kinds of comparisons with their shares."""
        return [(self.born(), 14), (self.died(), 5), (self.age(), 5), (self.out("film"), 12), (self.out("album"), 4),
                (self.out("song"), 2), (self.out("novel"), 2), (self.out("game"), 1), (self.founded("club"), 3),
                (self.founded("band"), 2), (self.founded("university"), 2), (self.founded("company"), 1),
                (self.inhabitants(), 6), (self.same_nation(), 10), (self.same_country(), 6), (self.same_director(), 6),
                (self.both(), 8), (self.which_occupation(), 5), (self.which_nation(), 4), (self.which_country(), 2)]


def grouped(entities, key):
    """Lists of entities with the same key, those of a single one left out."""
    found = collections.defaultdict(list)
    for e in entities:
        found[key(e)].append(e)
    return {k: v for k, v in found.items() if len(v) > 1}


def begun(sentence):
    return sentence[0].upper() + sentence[1:]


def with_article(word):
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def with_the(country):
    plural = ("United States", "United Kingdom", "Netherlands", "Philippines", "Czech Republic", "Bahamas")
    return f"the {country}" if country in plural else country


def country_of(nation):
    return NATIONS.get(nation, nation).replace("_", " ")


def speaks_of_country(entity, country):
    adjectives = [a for a, c in NATIONS.items() if c.replace("_", " ") == country]
    british = ("United Kingdom", "England", "Scotland", "Wales")
    names = [country, *adjectives] + (list(british) + ["British"] if country in british else [])
    return any(n in entity.text for n in names) or entity.country == country


def unlike_nations(a, b):
    if a.nation in BRITISH and b.nation in BRITISH:
        return False
    return all(x.nation not in y.text and country_of(x.nation) not in y.text for x, y in ((a, b), (b, a)))


def single_name(maker):
    """The name at the beginning of a clause, "" where several may be meant."""
    name = re.match(rf"({introductions.NAMES})(?=$|,? (?:and )?(?:starring|stars|featuring|written|produced|based|"
                    r"released|about|in|on|for|from|with|who|as|set|distributed)\b)", maker)
    return name[1] if name and " " in name[1] else ""


class Links:
    """Finds the documents that a document names."""

    TRADES = {"film": "direct|film-?maker", "album": "sing|music|band|rap|record|vocal|album|guitar|jazz",
              "song": "sing|music|band|rap|record|vocal|album", "novel": "writ|novel|author|poet|fiction|journal",
              "series": "televis|writ|produc|anim|cartoon|comed"}

    def __init__(self, entities, titles):
        self.entities = {folded(e.name): e for e in entities}
        self.places = {e.title: e for e in entities if e.kind == "place"}
        self.titles = titles

    def maker(self, work):
        """The entity of who made a work."""
        if work.kind not in self.TRADES:
            return None
        found = self.performer(work.maker) if work.kind in ("album", "song") else self.named(single_name(work.maker))
        if not found or found.kind not in ("person", "band"):
            return None
        trade = self.TRADES[work.kind]
        namesake = found.title != found.name and not re.search(trade, found.title.removeprefix(found.name))
        if namesake or not re.search(trade, found.text):
            return None
        if found.kind == "person" and work.year and not 14 < work.year - date_key(found.born)[0] < 100:
            return None
        return found

    def named(self, name):
        return self.entities.get(folded(name)) if name else None

    def performer(self, clause):
        """The first name in "American rock band the Pretty Reckless, released …"."""
        words = re.split(r"[,.;]| and | featuring | from | released | for | which | feat", clause)[0].split()
        clause = clause[:len(" ".join(words)) + 24]
        if re.search(r" (?:and|featuring|with|feat\.|composer|songwriter|lyricist) (?:the )?[A-Z]", clause):
            return None
        for before, (start, word) in zip(["", *words], enumerate(words[:8])):
            inside = before[:1].isupper() and before not in NATIONS and before != "The"
            found = self.named(" ".join(words[start:])) if word[0].isupper() and not inside else None
            if found and word not in NATIONS:
                return found
        return None

    def place(self, entity):
        """The entity of the settlement where something is."""
        place = re.sub(r", (?:United States|USA|US|U\.S\.)$", "", entity.place)
        found = self.places.get(place) or self.places.get(place.split(", ")[0])
        if not found or found.title == entity.title:
            return None
        rest = place.split(", ")[1:]
        if found.title != place and not all(part in found.text for part in rest):
            return None
        return found if rest or self.titles[folded(found.name)] == 1 and "," not in found.title else None


def chains_of(entity, links):
    """(first, second, kind, answer, words of the question) for what leads from an entity to a fact in another text."""
    maker = links.maker(entity)
    if maker:
        work = f"the {WORKS[entity.kind]} {entity.name}"
        words = {"who": f"{ROLES[entity.kind]} {work}"}
        if maker.kind == "band" and maker.year:
            yield entity, maker, "band formed", str(maker.year), {"who": f"the band behind {work}"}
        if maker.born:
            yield entity, maker, "born", maker.born, words
        if maker.died:
            yield entity, maker, "died", maker.died, words
        if maker.kind == "person" and maker.place:
            yield entity, maker, "birthplace", maker.place, words
        if maker.nation and maker.kind == "person":
            yield entity, maker, "nation", maker.nation, words
    place = links.place(entity) if entity.place else None
    if place:
        home = HOMES.get(entity.kind, "the place that hosts {a}").format(a=entity.name)
        if place.country and not speaks_of_country(entity, place.country):
            yield entity, place, "country", place.country, {"where": home}
        if place.county:
            yield entity, place, "county", place.county, {"where": home}
        if place.population:
            written = f"{place.population:,}"
            yield (entity, place, "population", written if written in place.text else str(place.population),
                   {"where": home})


def draw_chains(entities, links, count, rng):
    """Chains, no kind of which is more than a fifth; a common country or nationality is kept from being the rule."""
    by_kind, same = collections.defaultdict(list), collections.Counter()
    chains = [chain for entity in entities for chain in chains_of(entity, links)]
    rng.shuffle(chains)
    for chain in chains:
        first, second, kind, answer, _ = chain
        same[kind, answer] += 1
        if same[kind, answer] <= SAME_ANSWER and answer in second.text and answer not in first.text:
            by_kind[kind].append(chain)
    drawn = []
    for kind, chains in sorted(by_kind.items()):
        drawn += rng.sample(chains, min(len(chains), count // 5))
    rng.shuffle(drawn)
    return [Question("chain", kind, begun(rng.choice(CHAINS[kind]).format(**words)), [answer], [first.id, second.id])
            for first, second, kind, answer, words in drawn[:count]]


def draw_comparisons(comparisons, count):
    sources = comparisons.sources()
    total, questions, seen = sum(share for _, share in sources), [], set()
    for source, share in sources:
        wanted, answers = count * share // total, collections.Counter()
        for question in itertools.islice(source, 40 * wanted):
            if not question or (question.kind, *sorted(question.gold)) in seen:
                continue
            answer = question.answers[0]
            if answer in ("yes", "no") and answers[answer] >= wanted // 2:
                continue
            answers[answer] += 1
            seen.add((question.kind, *sorted(question.gold)))
            questions.append(question)
            if answers.total() >= wanted // 2 * 2:
                break
    return questions


class Neighbours:
    """Documents that are easily taken for an entity's."""

    def __init__(self, entities, rng):
        self.rng, self.of = rng, {e.id: e for e in entities}
        self.keys = collections.defaultdict(list)
        for e in entities:
            for key in self.keys_of(e):
                self.keys[key].append(e.id)

    def keys_of(self, e):
        words = folded(e.name).split()
        keys = [(e.kind, "last", words[-1]), (e.kind, "first", words[0])]
        return keys + ([(e.kind, "maker", single_name(e.maker))] if single_name(e.maker) else []) + [(e.kind,)]

    def near(self, gold):
        """Of all gold documents in turn, those of the closest sort first."""
        lists = []
        for identity in gold:
            found = []
            for key in self.keys_of(self.of[identity]):
                found += self.rng.sample(self.keys[key], min(2, len(self.keys[key])))
            lists.append(found + self.rng.sample(self.keys[key], min(NEGATIVES, len(self.keys[key]))))
        mixed = [i for pair in itertools.zip_longest(*lists) for i in pair if i and i not in gold]
        return list(dict.fromkeys(mixed))[:NEGATIVES]


def distinct(entities):
    """One entity of each text: a page that several titles lead to is there under each of them."""
    found = {}
    for e in entities:
        if e and (e.text not in found or e.text.startswith(e.name) > e.text.startswith(found[e.text].name)):
            found[e.text] = e
    return list(found.values())


def chosen_entities(chains, entities, count, rng):
    """Those of the chains first, then any."""
    used = dict.fromkeys(i for q in chains for i in q.gold)
    rest = [e for e in entities if e.id not in used]
    more = {e.id for e in rng.sample(rest, max(0, min(count - len(used), len(rest))))}
    return [e for e in entities if e.id in used or e.id in more]


def gold_pairs(folder):
    """Titles of every two documents that answer a question of a set together."""
    titles = {d["_id"]: folded(d["title"]) for d in read_lines(folder, "corpus.jsonl")}
    gold = [sorted({titles[d] for d in documents}) for documents in read_gold(folder).values()]
    return {pair for found in gold for pair in itertools.combinations(found, 2)}


def without_pairs(questions, pairs, entities):
    titles = {e.id: folded(e.title) for e in entities}
    return [q for q in questions if tuple(sorted(titles[i] for i in q.gold)) not in pairs]


def write_set(folder, documents, questions, neighbours):
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder, "corpus.jsonl", documents)
    write = lambda name: open(folder / name, "w", encoding="utf-8")
    with write("queries.jsonl") as out, write("qrels.tsv") as gold, write("hard_negatives.tsv") as wrong:
        gold.write("query-id\tcorpus-id\tscore\n")
        for i, q in enumerate(questions):
            line = {"_id": f"c{i}", "text": q.text, "answers": q.answers, "type": q.type}
            out.write(json.dumps(line | ({"hops": q.gold} if q.type == "chain" else {}), ensure_ascii=False) + "\n")
            for document in q.gold:
                gold.write(f"c{i}\t{document}\t1\n")
            for document in neighbours.near(q.gold):
                wrong.write(f"c{i}\t{document}\n")


def main():
    parser = argparse.ArgumentParser(description="Comparisons and chains of facts, as training questions")
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--documents", type=int, default=44000)
    parser.add_argument("--comparisons", type=int, default=36000)
    parser.add_argument("--chains", type=int, default=14000)
    parser.add_argument("--held-out", type=pathlib.Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    corpus = read_lines(options.corpus, "corpus.jsonl")
    titles = collections.Counter(folded(bare(d["title"])) for d in corpus)
    read = distinct(introductions.read(d) for d in corpus)
    entities = [e for e in read if titles[folded(e.name)] == 1 and not e.name[0].isdigit()
                and (e.name == e.title or e.kind in NAMED_ALONE)]
    chains = draw_chains(entities, Links(entities, titles), options.chains, rng)
    chosen = chosen_entities(chains, entities, options.documents // 2, rng)
    questions = draw_comparisons(Comparisons(chosen, rng), options.comparisons) + chains
    questions = without_pairs(questions, {p for f in options.held_out for p in gold_pairs(f)}, entities)
    rng.shuffle(questions)
    used = {i for q in questions for i in q.gold}
    others = [e.id for e in read if e.id not in used]
    kept = used | set(rng.sample(others, min(len(others), max(options.documents - len(used), 0))))
    documents = [{"_id": d["_id"], "title": d["title"], "text": d["text"]} for d in corpus if d["_id"] in kept]
    write_set(options.output, documents, questions, Neighbours([e for e in read if e.id in kept], rng))
    for kind, count in sorted(collections.Counter((q.type, q.kind) for q in questions).items()):
        print(f"{count:7} {kind[0]}: {kind[1]}")
    print(f"{len(documents)} documents, {len(questions)} questions in {options.output}")


if __name__ == "__main__":
    main()
