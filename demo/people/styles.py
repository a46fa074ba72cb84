"""The drawing styles' genes. Words were chosen by looking at every value; values without a true word are left out."""

from __future__ import annotations

from demo.people.genes import Options, Style, Value, Values


def _values(option: str, words: dict[str, str], who: str = "man", weight: float = 1.0) -> Values:
    return {name: Value(text, {option: [name]}, who, weight) for name, text in words.items()}


def _optional(option: str, words: dict[str, str], none: float) -> Values:
    """Values of a part that may be missing; `none` is the missing part's share."""
    absent = Value("", {f"{option}Probability": 0}, weight=none)
    weight = (1 - none) / len(words)
    present: dict[str, Options] = {name: {option: [name], f"{option}Probability": 100} for name in words}
    return {"none": absent} | {name: Value(words[name], present[name], weight=weight) for name in words}


PERSONAS = Style(
    package="personas",
    word="personas",
    identity={
        "hair": _values("hair", {
            "long": "long {} hair", "sideShave": "side-shaved {} hair", "bobCut": "a {} bob", "pigtails": "{} pigtails",
            "curlyBun": "a curly {} bun", "bobBangs": "a {} bob with bangs", "straightBun": "a {} bun",
            "extraLong": "very long {} hair", "curly": "big curly {} hair",
        }, "woman") | _values("hair", {
            "shortCombover": "short {} hair", "curlyHighTop": "curly {} hair", "bald": "a bald head",
            "balding": "thin {} hair", "bunUndercut": "a {} topknot", "fade": "short {} hair in a fade",
            "shortComboverChops": "{} hair and sideburns", "mohawk": "a {} mohawk",
        }),
        "facial_hair": _optional("facialHair", {
            "beardMustache": "a beard", "pyramid": "a moustache", "walrus": "a thick moustache", "goatee": "a goatee",
        }, none=0.6),
        "glasses": {
            "none": Value("", weight=0.7),
            "glasses": Value("glasses", {"eyes": ["glasses"]}, weight=0.2),
            "sunglasses": Value("sunglasses", {"eyes": ["sunglasses"]}, weight=0.1),
        },
        "nose": _values("nose", {"mediumRound": "", "smallRound": "", "wrinkles": ""}),
    },
    varying={
        "expression": _values("mouth", {
            "smile": "smiling", "frown": "sad", "surprise": "surprised", "bigSmile": "laughing", "smirk": "smirking",
        }),
        "eyes": {
            "open": Value("", {"eyes": ["open"]}, weight=3),
            "sleep": Value("closed eyes", {"eyes": ["sleep"]}),
            "wink": Value("a wink", {"eyes": ["wink"]}),
            "happy": Value("happy eyes", {"eyes": ["happy"]}),
        },
        "clothes": _values("body", {"squared": "shirt", "rounded": "shirt", "checkered": "checkered shirt"}),
    },
    fixed={},
    colours={"hairColor": "hair_colour", "skinColor": "skin", "clothingColor": "clothes_colour"},
    weight=0.25,
)  # fmt: skip


def _toon_hair(front: str, rear: str, words: str, who: str) -> Value:
    back: Options = {"rearHair": [rear], "rearHairProbability": 100} if rear else {"rearHairProbability": 0}
    return Value(words, {"hair": [front], **back}, who)


def _toon_expression(words: str, mouth: str, brows: str) -> Value:
    return Value(words, {"mouth": [mouth], "eyebrows": [brows]})


TOON_HEAD = Style(
    package="toon-head",
    word="toonhead",
    identity={
        "hair": {
            "sideComed": _toon_hair("sideComed", "", "short combed {} hair", "man"),
            "undercut": _toon_hair("undercut", "", "{} hair in an undercut", "man"),
            "spiky": _toon_hair("spiky", "", "spiky {} hair", "man"),
            "bun": _toon_hair("bun", "", "a big {} bun", "woman"),
            "sideComed-neckHigh": _toon_hair("sideComed", "neckHigh", "a {} bob", "woman"),
            "sideComed-longStraight": _toon_hair("sideComed", "longStraight", "long straight {} hair", "woman"),
            "sideComed-longWavy": _toon_hair("sideComed", "longWavy", "long wavy {} hair", "woman"),
            "sideComed-shoulderHigh": _toon_hair("sideComed", "shoulderHigh", "shoulder-length {} hair", "woman"),
            "bun-longWavy": _toon_hair("bun", "longWavy", "a big {} bun and long hair", "woman"),
        },
        "facial_hair": _optional("beard", {
            "moustacheTwirl": "a moustache", "fullBeard": "a beard", "chinMoustache": "a goatee",
            "longBeard": "a long beard",
        }, none=0.4),
    },
    varying={
        "expression": {
            "smile": _toon_expression("smiling", "smile", "neutral"),
            "laugh": _toon_expression("laughing", "laugh", "happy"),
            "angry": _toon_expression("angry", "angry", "angry"),
            "surprised": _toon_expression("surprised", "agape", "raised"),
            "sad": _toon_expression("sad", "sad", "sad"),
        },
        "eyes": {
            "happy": Value("", {"eyes": ["happy"]}, weight=2),
            "wide": Value("wide eyes", {"eyes": ["wide"]}),
            "bow": Value("happy eyes", {"eyes": ["bow"]}),
            "humble": Value("closed eyes", {"eyes": ["humble"]}),
            "wink": Value("a wink", {"eyes": ["wink"]}),
        },
        "clothes": _values("clothes", {
            "turtleNeck": "turtleneck", "openJacket": "jacket", "dress": "top", "shirt": "shirt", "tShirt": "t-shirt",
        }),
    },
    fixed={"hairProbability": 100},
    colours={"hairColor": "hair_colour", "skinColor": "skin", "clothesColor": "clothes_colour"},
    weight=0.25,
)  # fmt: skip

MICAH = Style(
    package="micah",
    word="micah",
    identity={
        "hair": _values("hair", {"full": "long wavy {} hair", "pixie": "a {} bob"}, "woman")
        | _values("hair", {
            "fonze": "swept {} hair", "mrT": "a {} mohawk", "mrClean": "a bald head", "dannyPhantom": "combed {} hair",
            "turban": "a {} turban",
        }),
        "facial_hair": _optional("facialHair", {"beard": "a beard", "scruff": "stubble"}, none=0.55),
        "glasses": _optional("glasses", {"round": "round glasses", "square": "square glasses"}, none=0.6),
        "earrings": _optional("earrings", {"hoop": "an earring"}, none=0.8),
        "nose": _values("nose", {"curve": "", "pointed": "", "tound": ""}),
    },
    varying={
        "expression": _values("mouth", {
            "smile": "smiling", "laughing": "laughing", "surprised": "surprised", "nervous": "nervous",
            "frown": "sad", "pucker": "kissing", "smirk": "smirking",
        }),
        "eyes": {
            "eyes": Value("", {"eyes": ["eyes"]}, weight=2),
            "round": Value("round eyes", {"eyes": ["round"]}),
            "smiling": Value("happy eyes", {"eyes": ["smiling"]}),
        },
        "brows": _values("eyebrows", {"up": "", "down": "", "eyelashesUp": ""}),
        "clothes": _values("shirt", {"open": "shirt", "crew": "sweater", "collared": "collared shirt"}),
    },
    fixed={
        "ears": ["attached"], "hairProbability": 100, "eyebrowsColor": ["000000"], "eyesColor": ["000000"],
        "glassesColor": ["000000"], "mouthColor": ["000000"], "earringColor": ["f4d150"],
    },
    colours={
        "hairColor": "hair_colour", "facialHairColor": "hair_colour", "baseColor": "skin",
        "shirtColor": "clothes_colour",
    },
    weight=0.18,
)  # fmt: skip

MINIAVS = Style(
    package="miniavs",
    word="miniavs",
    identity={
        "hair": _values("hair", {"ponyTail": "a {} ponytail", "long": "long {} hair"}, "woman", weight=2)
        | _values("hair", {
            "slaughter": "thin {} hair", "curly": "curly {} hair", "stylish": "swept {} hair", "elvis": "a {} quiff",
            "classic02": "short {} hair", "classic01": "combed {} hair",
        }),
        "facial_hair": _optional("mustache", {
            "pencilThinBeard": "a goatee", "pencilThin": "a thin moustache", "horshoe": "a long moustache",
            "freddy": "a moustache",
        }, none=0.5),
        "glasses": _optional("glasses", {"normal": "round glasses"}, none=0.65),
        "head": _values("head", {"normal": "", "wide": "", "thin": ""}),
    },
    varying={
        # Every mouth of this style laughs.
        "expression": {
            "default": Value("laughing", {"mouth": ["default"]}),
            "missingTooth": Value("gap-toothed", {"mouth": ["missingTooth"]}, weight=0.5),
        },
        "eyes": {
            "normal": Value("", {"eyes": ["normal"]}, weight=2),
            "confident": Value("half-closed eyes", {"eyes": ["confident"]}),
        },
        "blushes": _optional("blushes", {"default": "red cheeks"}, none=0.7),
        "clothes": _values("body", {"tShirt": "t-shirt", "golf": "turtleneck"}),
    },
    fixed={},
    colours={"hairColor": "hair_colour", "skinColor": "skin", "bodyColor": "clothes_colour"},
    weight=0.16,
)  # fmt: skip

# Most of this style's hair is black whatever is asked for; where it takes a colour, the gene colours it.
_PEEPS_BLACK = {
    "afro": "a black afro",
    "bangs2": "a black bob",
    "buns": "black hair in buns",
    "long": "long black hair",
    "longCurly": "long curly black hair",
    "medium3": "straight black hair",
    "bun2": "a black ponytail",
}
_PEEPS_BLACK_SHORT = {
    "flatTop": "black hair in a flat top",
    "pomp": "swept black hair",
    "short1": "short black hair",
    "dreads2": "black dreadlocks",
    "noHair1": "a bald head",
    "hatHip": "a black hat",
}
_PEEPS_COLOURED = {"bangs": "a {} bob", "grayBun": "a {} bun", "grayMedium": "tied {} hair"}
_PEEPS_COLOURED_SHORT = {"grayShort": "short {} hair", "mohawk": "a {} mohawk", "short4": "swept {} hair"}

OPEN_PEEPS = Style(
    package="open-peeps",
    word="peeps",
    identity={
        "hair": _values("head", _PEEPS_BLACK, "woman") | _values("head", _PEEPS_BLACK_SHORT)
        | _values("head", _PEEPS_COLOURED, "woman", 2) | _values("head", _PEEPS_COLOURED_SHORT, weight=2),
        "facial_hair": _optional("facialHair", {
            "full": "a black beard", "goatee1": "a black goatee", "moustache5": "a black moustache",
        }, none=0.5),
        "glasses": _optional("accessories", {
            "glasses2": "round glasses", "glasses3": "glasses", "sunglasses": "sunglasses",
        }, none=0.6),
    },
    varying={
        "expression": _values("face", {
            "smile": "smiling", "smileBig": "grinning", "solemn": "sad", "veryAngry": "angry", "calm": "calm",
            "concerned": "worried", "fear": "frightened", "lovingGrin1": "loving",
        }),
    },
    fixed={"maskProbability": 0},
    colours={"headContrastColor": "hair_colour", "skinColor": "skin", "clothingColor": "clothes_colour"},
    weight=0.1,
)  # fmt: skip

ADVENTURER = Style(
    package="adventurer",
    word="adventurer",
    identity={
        "hair": _values("hair", {
            "long19": "a {} ponytail", "long17": "long wavy {} hair", "long16": "a {} braid", "long15": "{} pigtails",
            "long23": "{} hair in two buns", "long07": "long straight {} hair", "long05": "a {} bob",
            "long11": "a {} bun",
        }, "woman")
        | _values("hair", {
            "short16": "spiky {} hair", "short15": "a {} mohawk", "short11": "short {} hair",
            "short03": "curly {} hair", "short01": "short messy {} hair", "short19": "a bald head",
        }),
        "glasses": _optional("glasses", {"variant01": "sunglasses", "variant02": "square glasses",
                                         "variant05": "round glasses"}, none=0.6),
        "features": _optional("features", {"freckles": "freckles", "blush": "red cheeks"}, none=0.7),
    },
    varying={
        "expression": _values("mouth", {
            "variant26": "laughing", "variant22": "grinning", "variant18": "surprised", "variant16": "cheeky",
            "variant09": "calm", "variant04": "sad",
        }),
        "eyes": _values("eyes", {"variant26": "", "variant24": "", "variant02": ""})
        | _values("eyes", {"variant19": "closed eyes"}, weight=0.6),
        "brows": _values("eyebrows", {"variant10": "", "variant08": "", "variant11": ""}),
    },
    fixed={"earringsProbability": 0, "hairProbability": 100},
    colours={"hairColor": "hair_colour", "skinColor": "skin"},
    weight=0.06,
)  # fmt: skip

BIG_SMILE = Style(
    package="big-smile",
    word="bigsmile",
    identity={
        "hair": _values("hair", {
            "wavyBob": "a wavy {} bob", "bunHair": "a {} bun", "braids": "{} braids", "straightHair": "long {} hair",
        }, "woman")
        | _values("hair", {"shortHair": "short {} hair", "mohawk": "a {} mohawk", "bowlCutHair": "a {} bowl cut"}),
        "glasses": _optional("accessories", {"glasses": "glasses", "sunglasses": "sunglasses"}, none=0.5),
    },
    varying={
        "expression": _values("mouth", {
            "openedSmile": "laughing", "unimpressed": "calm", "openSad": "sad", "teethSmile": "grinning",
        }),
        "eyes": _values("eyes", {"cheery": "happy eyes", "normal": "", "winking": "a wink", "sleepy": "sleepy eyes"}),
    },
    fixed={},
    colours={"hairColor": "hair_colour", "skinColor": "skin"},
)  # fmt: skip

LORELEI = Style(
    package="lorelei",
    word="lorelei",
    identity={
        "hair": _values("hair", {f"variant{number:02d}": "" for number in range(1, 49)}, "person"),
        "facial_hair": _optional("beard", {"variant01": "a beard", "variant02": "a beard"}, none=0.8),
        "glasses": _optional("glasses", {f"variant{number:02d}": "glasses" for number in (1, 2, 3)}, none=0.6),
        "nose": _values("nose", {f"variant{number:02d}": "" for number in range(1, 7)}),
        "head": _values("head", {f"variant{number:02d}": "" for number in range(1, 5)}),
    },
    varying={
        "expression": _values("mouth", {f"happy{number:02d}": "smiling" for number in range(1, 19)})
        | _values("mouth", {f"sad{number:02d}": "sad" for number in range(1, 10)}),
        "eyes": _values("eyes", {f"variant{number:02d}": "" for number in range(1, 25)}),
        "brows": _values("eyebrows", {f"variant{number:02d}": "" for number in range(1, 14)}),
    },
    fixed={"earringsProbability": 0, "frecklesProbability": 0, "hairAccessoriesProbability": 0},
    colours={},
)

NOTIONISTS = Style(
    package="notionists",
    word="notionists",
    identity={
        "hair": _values("hair", {f"variant{number:02d}": "" for number in range(1, 64)}, "person"),
        "facial_hair": _optional("beard", {f"variant{number:02d}": "a beard" for number in range(1, 13)}, none=0.8),
        "glasses": _optional("glasses", {f"variant{number:02d}": "glasses" for number in range(1, 12)}, none=0.7),
        "nose": _values("nose", {f"variant{number:02d}": "" for number in range(1, 21)}),
    },
    varying={
        "mouth": _values("lips", {f"variant{number:02d}": "" for number in range(1, 31)}),
        "eyes": _values("eyes", {f"variant{number:02d}": "" for number in range(1, 6)}),
        "brows": _values("brows", {f"variant{number:02d}": "" for number in range(1, 14)}),
        "clothes": _values("body", {f"variant{number:02d}": "" for number in range(1, 26)}),
    },
    fixed={"bodyIconProbability": 0, "gestureProbability": 0},
    colours={},
)

STYLES = {
    style.package: style
    for style in (PERSONAS, TOON_HEAD, MICAH, MINIAVS, OPEN_PEEPS, ADVENTURER, BIG_SMILE, LORELEI, NOTIONISTS)
}
TRAINED = tuple(style for style in STYLES.values() if style.weight)
HELD_OUT = tuple(style for style in STYLES.values() if not style.weight)
