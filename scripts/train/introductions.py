"""Reads facts out of the introductions of an encyclopedia, by patterns that rather miss a fact than read a wrong one.

read(document) gives an Entity with what its introduction says, or None where the kind of thing stays open.
"""
import dataclasses
import re
import unicodedata

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")
MONTH = "|".join(MONTHS)
DATE = rf"(?:\d{{1,2}} (?:{MONTH}) \d{{4}}|(?:{MONTH}) \d{{1,2}}, \d{{4}})"
NATIONS = dict(pair.split(":") for pair in """
Afghan:Afghanistan Albanian:Albania Algerian:Algeria American:United_States Angolan:Angola Argentine:Argentina
Armenian:Armenia Australian:Australia Austrian:Austria Azerbaijani:Azerbaijan Bahamian:Bahamas Bangladeshi:Bangladesh
Belarusian:Belarus Belgian:Belgium Bolivian:Bolivia Bosnian:Bosnia Brazilian:Brazil British:United_Kingdom
Bulgarian:Bulgaria Cameroonian:Cameroon Canadian:Canada Chilean:Chile Chinese:China Colombian:Colombia
Croatian:Croatia Cuban:Cuba Cypriot:Cyprus Czech:Czech_Republic Danish:Denmark Dutch:Netherlands Ecuadorian:Ecuador
Egyptian:Egypt English:England Estonian:Estonia Ethiopian:Ethiopia Fijian:Fiji Filipino:Philippines Finnish:Finland
French:France German:Germany Ghanaian:Ghana Greek:Greece Guatemalan:Guatemala Hungarian:Hungary Icelandic:Iceland
Indian:India Indonesian:Indonesia Iranian:Iran Iraqi:Iraq Irish:Ireland Israeli:Israel Italian:Italy
Ivorian:Ivory_Coast Jamaican:Jamaica Japanese:Japan Kazakhstani:Kazakhstan Kenyan:Kenya Kuwaiti:Kuwait Latvian:Latvia
Lebanese:Lebanon Lithuanian:Lithuania Malaysian:Malaysia Maltese:Malta Mexican:Mexico Mongolian:Mongolia
Moroccan:Morocco Nigerian:Nigeria Norwegian:Norway Pakistani:Pakistan Panamanian:Panama Paraguayan:Paraguay
Peruvian:Peru Polish:Poland Portuguese:Portugal Romanian:Romania Russian:Russia Scottish:Scotland Senegalese:Senegal
Serbian:Serbia Singaporean:Singapore Slovak:Slovakia Slovenian:Slovenia Spanish:Spain Swedish:Sweden Swiss:Switzerland
Syrian:Syria Taiwanese:Taiwan Thai:Thailand Tunisian:Tunisia Turkish:Turkey Ugandan:Uganda Ukrainian:Ukraine
Uruguayan:Uruguay Uzbekistani:Uzbekistan Venezuelan:Venezuela Vietnamese:Vietnam Welsh:Wales Zambian:Zambia
Zimbabwean:Zimbabwe
""".split())
COUNTRIES = sorted({n.replace("_", " ") for n in NATIONS.values()} | {"New Zealand", "South Africa", "South Korea"})
# A nationality beside a further one, or as part of another word's meaning, says nothing about where someone is from.
NATIONALITY = re.compile(
    rf"(?<![-–/\w])({'|'.join(NATIONS)}|New Zealand|South African|South Korean|Georgian)(?![-–/\w])"
    r"(?! and [A-Z]| [Ff]ootball| rules| language| Revolution| born|,? [A-Z][a-z]+(?:an|ish|ese)\b)")
# Occupation: its plural, and what the introduction of someone who does not have it must not speak of.
OCCUPATIONS = {
    "actor": ("actors", "act|film|televis|theat|stage|perform"),
    "architect": ("architects", "architect|design|build"),
    "basketball player": ("basketball players", "basketball"),
    "boxer": ("boxers", "box|weight"),
    "comedian": ("comedians", "comed|comic|stand-up|humor"),
    "composer": ("composers", "compos|music|song"),
    "cricketer": ("cricketers", "cricket|bats|bowl"),
    "cyclist": ("cyclists", "cycl|bicycl|bike|road rac"),
    "economist": ("economists", "econom"),
    "fencer": ("fencers", "fenc|épée|foil|sabre"),
    "film director": ("film directors", "direct|film"),
    "footballer": ("footballers", "football|soccer"),
    "golfer": ("golfers", "golf"),
    "guitarist": ("guitarists", "guitar|music|band"),
    "gymnast": ("gymnasts", "gymnast"),
    "historian": ("historians", "histor"),
    "ice hockey player": ("ice hockey players", "hockey"),
    "journalist": ("journalists", "journal|report|news|magazine|edit|column|correspond|writ|anchor|broadcast"),
    "lawyer": ("lawyers", "law|legal|attorney|judge|jur|court|barrister|solicitor"),
    "mathematician": ("mathematicians", "math|geomet|algebra|statistic"),
    "novelist": ("novelists", "novel|writ|author|book|fiction|stor"),
    "painter": ("painters", "paint|artist|drawing"),
    "philosopher": ("philosophers", "philosoph|ethic|theolog|theor"),
    "photographer": ("photographers", "photo"),
    "physicist": ("physicists", "physic"),
    "poet": ("poets", "poe|writ|author"),
    "politician": ("politicians", "politic|minister|president|govern|party|elect|parliament|senat|congress|mayor|"
                                  "council|represent|member|ambassador"),
    "racing driver": ("racing drivers", "rac(?:ing|e)|driv|motor"),
    "rapper": ("rappers", "rap|hip|music"),
    "rower": ("rowers", "row|sculls|eights|coxed|coxless"),
    "screenwriter": ("screenwriters", "writ|wrote|screenplay|film|televis"),
    "sculptor": ("sculptors", "sculpt|artist|statue"),
    "singer": ("singers", "sing|song|vocal|music|record|album|perform|opera|tenor|sopran"),
    "sprinter": ("sprinters", "sprint|metres|athlet|runner|track|relay|100 m"),
    "swimmer": ("swimmers", "swim|swam|freestyle|butterfly|breaststroke"),
    "tennis player": ("tennis players", "tennis"),
    "wrestler": ("wrestlers", "wrestl|freestyle|Greco|weight"),
}
EVENTS = "(?:Murder|Death|Killing|Assassination|Disappearance|Execution|Kidnapping|Shooting|Trial|Life|Early life) of "
FEMALE = {"actress": "actor", "actresses": "actor", "poetess": "poet", "comedienne": "comedian"}
SETTLEMENT = ("city|town|village|municipality|commune|township|borough|hamlet|suburb|census-designated place|"
              "unincorporated community")
KINDS_OF_ORGANISATION = {
    "club": "football club|football team|soccer club|soccer team|rugby union team|basketball team|basketball club|"
            "ice hockey team|ice hockey club|sports club",
    "university": "university", "college": "college", "school": "high school|school", "newspaper": "newspaper",
    "magazine": "magazine", "airline": "airline", "record label": "record label", "company": "company",
    "band": "boy band|girl group|hip hop group|musical group|band"}
ORGANISATIONS = {word: kind for kind, words in KINDS_OF_ORGANISATION.items() for word in words.split("|")}
SITES = "stadium|arena|railway station|train station|church|museum|airport|hospital"
# Kind of work, the beginning of its description (with the year, if it has one), what stands before its maker's name.
WORKS = (
    ("film", r"((?:18|19|20)\d\d) ([^,.]*?)\bfilm\b", r"\bdirected(?: and (?:produced|written|co-written))? by "),
    ("album", r"()([^,.]*?)\b(?:album|EP|mixtape)\b", r"\b(?:album|EP|mixtape) (?:recorded |released )?by "),
    ("song", r"()([^,.]*?)\b(?:song|single)\b", r"\b(?:song|single) (?:recorded |performed |released )?by "),
    ("novel", r"()([^,.]*?)\b(?:novel|novella|book|short story)\b(?! series)",
     r"\b(?:novel|novella|book|story),? (?:written )?by "),
    ("series", r"()([^,.]*?)\b(?:(?:television|TV|web|comedy|drama|animated) (?:series|sitcom)|sitcom)\b",
     r"\bcreated by "),
    ("game", r"()([^,.]*?)\bvideo game\b", r"\bdeveloped(?: and published)? by "))
NO_WORK = (r"\b(?:band|company|musical|play|comic|festival|actor|director|franchise|award|season|episode|character|"
           r"list|duo|soundtrack|label|store|series of)\b")
YEAR = r"(?:1[0-9]|20)\d\d"
DAY_OF_YEAR = r"(?:\w+ \d{1,2}, |\d{1,2} \w+ |\w+ )?"
CAPITAL = "[A-ZÀ-ÖØ-ÞĀ-Ž]"
PARTICLE = "van|von|der|den|de|del|della|da|dos|la|le|di|bin|al|el|ten|ter"
NAMES = rf"{CAPITAL}[\w'’-]*\.?(?: (?:(?:Mc|Mac|O'|d'|D'|{CAPITAL})[\w'’-]*\.?|{PARTICLE}))*"
PLACE = rf"{NAMES}(?:, {NAMES})*"
THE_TOWN_OF = "(?:the (?:city|town|village) of )?"


@dataclasses.dataclass
class Entity:
    id: str
    title: str
    text: str
    kind: str = ""
    born: str = ""
    died: str = ""
    nation: str = ""  # an adjective: "Dutch"
    occupations: tuple = ()
    year: int = 0  # of release, or of the founding
    maker: str = ""  # text that begins with the name of who directed, performed or wrote it
    place: str = ""  # where it is, or where the person was born: "Brockport, New York"
    country: str = ""
    county: str = ""
    population: int = 0

    @property
    def name(self):
        return bare(self.title)


def bare(title):
    """The title without what tells it from others: "Ghanchakkar (film)" is "Ghanchakkar"."""
    return re.sub(r" \([^()]*\)$", "", title)


def folded(text):
    """For comparing names: no accents, no case, no article."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.sub(r"^the ", "", re.sub(r"[^\w ]", "", plain.lower()).strip())


def without_parentheses(text):
    while (shorter := re.sub(r" ?(?:\([^()]*\)|\[[^\[\]]*\])", "", text)) != text:
        text = shorter
    return text


def sentences(text):
    no_abbreviation = "".join(rf"(?<!\b{a})" for a in ("Jr", "Sr", "St", "Dr", "Mr", "vs", "Mt", "No"))
    return re.split(rf"(?<=[a-z0-9é)\]\"]){no_abbreviation}\. (?=[A-Z])", text)


def date_key(date):
    """(year, month, day) of "3 May 1950" or "May 3, 1950"."""
    month = next(m for m in MONTHS if m in date)
    day, year = sorted(map(int, re.findall(r"\d+", date)), key=lambda n: n > 31)
    return year, MONTHS.index(month) + 1, day


def nation_of(description):
    found = set(NATIONALITY.findall(description))
    any_nation = set(re.findall(rf"\b({'|'.join(NATIONS)})\b", description))
    return found.pop() if len(found) == 1 and len(any_nation | found) == 1 else ""


def read(document):
    entity = Entity(document["_id"], document["title"], document["text"])
    lead = sentences(entity.text)
    first = without_parentheses(lead[0])
    begin = re.match(r"(.{1,100}?) (?:is|was|are|were) (?:an?|the) (.*)", first, re.S)
    if not begin or not called(entity, begin[1]):
        return None
    for reader in (person, work, settlement, organisation, site):
        if reader(entity, begin[2], lead):
            whole = entity.kind == "place" or entity.kind in (w[0] for w in WORKS)
            return entity if not whole or folded(short(entity)) in folded(begin[1]) else None
    return None


def short(entity):
    """A town's name without the region, other names whole."""
    return entity.name.split(",")[0] if entity.kind == "place" else entity.name


def called(entity, subject):
    """Does the subject of the first sentence bear the title's name? Some titles lead to another page's text."""
    name, subject = folded(entity.name), folded(subject)
    words = name.split(",")[0].split()
    return bool(words) and (name in subject or subject in name or words[-1] in subject.split())


def person(entity, description, lead):
    life = re.match(r"[^()]{2,70} \((.*?)\),? (?:is|was) an? ", lead[0])
    if not life or re.match(EVENTS, entity.title) or not life_dates(entity, life[1]):
        return False
    entity.kind = "person"
    clause = re.split(r";|,? (?:who|whose|which|best|known|that|born|of|for|from|with|"
                      r"and (?:the )?(?:brother|sister|son|wife|daughter))\b", description)[0]
    entity.nation = nation_of(clause)
    words = re.sub(r"\w+", lambda w: FEMALE.get(w[0], w[0]), clause)
    entity.occupations = tuple(o for o in OCCUPATIONS if re.search(rf"(?<![-/])\b{o}\b(?![-/'’])", words)
                               and not re.search(rf"\b{o} (?:coach|agent|manager|critic|referee)", words))
    if not entity.place:
        place = re.search(rf"(?:^|\. )(?:He|She|[A-Z]\w+) was born in ({PLACE})(?=[,.;]| (?:and|in|on|to|where|but)\b)",
                          entity.text)
        entity.place = place[1] if place else ""
    return True


def life_dates(entity, text):
    """Reads what stands in parentheses behind a person's name."""
    span = re.search(rf"({DATE})(?:,? (?:in )?[^;,()\d]*?)? ?[-–] ?({DATE})", text)
    if span:
        entity.born, entity.died = span[1], span[2]
        return date_key(entity.died) > date_key(entity.born)
    born = re.search(rf"\b[Bb]orn (?:[A-Z][^;,()\d]* )?(?:on )?({DATE})(?: in ([A-ZÀ-Ý][^;()\d]*?))?(?:[;)]|$)", text)
    if born:
        entity.born, entity.place = born[1], (born[2] or "").strip()
    return bool(born)


def work(entity, description, lead):
    found = [(match.end(), kind, match, by) for kind, pattern, by in WORKS if (match := re.match(pattern, description))]
    if not found:
        return False
    end, entity.kind, match, by = min(found, key=lambda f: f[0])
    begun = description[:end]
    if re.search(NO_WORK, begun if entity.kind == "series" else description[:end + 12]) or "based on" in begun:
        return False
    entity.year = int(match[1]) if match[1] else released(entity, description, lead)
    entity.nation = nation_of(match[2]) if entity.kind == "film" else ""
    made = re.search(by, description)
    entity.maker = description[made.end():] if made else ""
    return True


def released(entity, description, lead):
    """The year in which a work came out, where the beginning names a single one."""
    own = re.match(rf"({YEAR}) ", description)
    if own:
        return int(own[1])
    verb, noun = ("published", "book") if entity.kind == "novel" else ("released", "record")
    subject = rf"(?:It|The {entity.kind}|The {noun}|{re.escape(entity.name)}) was (?:first |originally )?{verb}\b"
    for sentence in [description] + [s for s in lead[1:4] if re.match(subject, s)]:
        year = re.search(rf"\b(?<!-){verb}\b (?:worldwide )?(?:in|on) {DAY_OF_YEAR}({YEAR})\b", sentence)
        if year and len(set(re.findall(rf"\b{YEAR}\b", sentence))) == 1:
            return int(year[1])
    return 0


def settlement(entity, description, lead):
    kind = rf"(?:\w+[ -]){{0,4}}?(?:{SETTLEMENT})\b(?! (?:in the|council|hall|of the)\b)"
    if not re.match(rf"{kind}[^.]*\bin\b", description):
        return False
    if re.search(r"\b(?:former|ancient|fictional|abandoned|station|church|school|club|team)\b", description[:60]):
        return False
    entity.kind, entity.country = "place", country_of(description)
    county = re.search(r"\b(?:in|of) (?:[a-z]+ )?((?:[A-Z][\w'.]*\s)+(?:County|Parish))\b(?! and\b)", description)
    counties = set(re.findall(r"\w+ (?:County|Parish)\b", description))
    if county and len(counties) == 1 and "Counties" not in description:
        entity.county = county[1]
    of_it = r"(?:the (?:city|town|village|municipality|commune|borough|township)(?:'s)? |its |it )?"
    for sentence in lead[1:4]:
        count = re.match(rf"(?:(?:As of|At|In|According to)[^,]*, )?(?:the )?{of_it}(?:had a |has a )?(?:total )?"
                         r"population (?:was|of|is) ([\d,]*\d)", sentence, re.I)
        if count:
            entity.population = int(count[1].replace(",", ""))
            break
    return True


def country_of(description):
    """The only country that is named; England and the like rather than the United Kingdom."""
    alone = r"(?<!New )(?<!Northern )(?<!Gulf of )\b{}\b(?! and\b)"
    found = [c for c in COUNTRIES if re.search(alone.format(c), description)]
    if re.search(r"\bU\.S\. (?:state|[Cc]ommonwealth)\b|, U\.S\.", description) and "United States" not in found:
        found.append("United States")
    if any(c in found for c in ("England", "Scotland", "Wales")) and "United Kingdom" in found:
        found.remove("United Kingdom")
    if len(found) != 1 or re.search(r"\bborder|near\b", description.split(found[0])[0]):
        return ""
    return found[0]


def organisation(entity, description, lead):
    found = re.match(rf"([^,.]*?)\b({'|'.join(ORGANISATIONS)})\b(?! (?:player|coach|director|song))", description)
    if not found or re.search(r"\b(?:season|by|ground|in|of|for|song|member|list|franchise|building|series|system|"
                              r"district)\b", found[1]):
        return False
    entity.kind, entity.nation = ORGANISATIONS[found[2]], nation_of(found[0])
    based = (re.search(rf"\b(?:based|located|situated|formed|founded) in {THE_TOWN_OF}({PLACE})", description)
             or re.match(rf"{re.escape(found[0])} (?:in|from) {THE_TOWN_OF}({PLACE})", description))
    entity.place, entity.year = based[1] if based else "", founded(entity, description, lead)
    return True


def founded(entity, description, lead):
    nouns = "|".join(KINDS_OF_ORGANISATION)
    subject = (rf"(?:It|The (?:{nouns}|team|group|paper|label|institution)|{re.escape(entity.name)}) "
               r"(?:was|were) (?:first |originally )?(?:formed|founded|established)|Formed|Founded|Established")
    for sentence in [description] + [s for s in lead[1:4] if re.match(subject, s)]:
        year = re.search(rf"\b(?:formed|founded|established)\b (?:in [A-Z][^.\d]*)?(?:in|on) {DAY_OF_YEAR}({YEAR})\b",
                         sentence, re.I)
        again = r"\b(?:merge|successor|re-?(?:found|establish|form|nam)ed|as)\b"
        if year and not re.search(again, sentence[:year.end() + 20]):
            return int(year[1])
    return 0


def site(entity, description, lead):
    found = re.match(rf"([^,.]*?)\b({SITES})\b", description)
    if not found or re.search(r"\b(?:song|film|former|fictional|series|by|member|of|list|band)\b", found[1]):
        return False
    where = re.match(rf"[^.]*?\b(?:in|serving) (?:downtown |central )?{THE_TOWN_OF}({PLACE})",
                     description[found.end():])
    entity.kind, entity.place = found[2], where[1] if where else ""
    return True
