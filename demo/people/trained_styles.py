"""The styles that the base learns. Words were chosen by looking; values without a true word are left out."""

from __future__ import annotations

from demo.people.genes import Options, Style, Value
from demo.people.style_values import optional, values

PERSONAS = Style(
    package="personas",
    word="personas",
    identity={
        "hair": values("hair", {
            "long": "long {} hair", "sideShave": "side-shaved {} hair", "bobCut": "a {} bob", "pigtails": "{} pigtails",
            "curlyBun": "a curly {} bun", "bobBangs": "a {} bob with bangs", "straightBun": "a {} bun",
            "extraLong": "very long {} hair", "curly": "big curly {} hair",
        }, "woman") | values("hair", {
            "shortCombover": "short {} hair", "curlyHighTop": "curly {} hair", "bald": "a bald head",
            "balding": "thin {} hair", "bunUndercut": "a {} topknot", "fade": "short {} hair in a fade",
            "shortComboverChops": "{} hair and sideburns", "mohawk": "a {} mohawk",
        }),
        "facial_hair": optional("facialHair", {
            "beardMustache": "a beard", "pyramid": "a moustache", "walrus": "a thick moustache", "goatee": "a goatee",
        }, none=0.6),
        "glasses": {
            "none": Value("", weight=0.7),
            "glasses": Value("glasses", {"eyes": ["glasses"]}, weight=0.2),
            "sunglasses": Value("sunglasses", {"eyes": ["sunglasses"]}, weight=0.1),
        },
        "nose": values("nose", {"mediumRound": "", "smallRound": "", "wrinkles": ""}),
    },
    varying={
        "expression": values("mouth", {
            "smile": "smiling", "frown": "sad", "surprise": "surprised", "bigSmile": "laughing", "smirk": "smirking",
        }),
        "eyes": {
            "open": Value("", {"eyes": ["open"]}, weight=3),
            "sleep": Value("closed eyes", {"eyes": ["sleep"]}),
            "wink": Value("a wink", {"eyes": ["wink"]}),
            "happy": Value("happy eyes", {"eyes": ["happy"]}),
        },
        "clothes": values("body", {"squared": "shirt", "rounded": "shirt", "checkered": "checkered shirt"}),
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
        "facial_hair": optional("beard", {
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
        "clothes": values("clothes", {
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
        "hair": values("hair", {"full": "long wavy {} hair", "pixie": "a {} bob"}, "woman")
        | values("hair", {
            "fonze": "swept {} hair", "mrT": "a {} mohawk", "mrClean": "a bald head", "dannyPhantom": "combed {} hair",
            "turban": "a {} turban",
        }),
        "facial_hair": optional("facialHair", {"beard": "a beard", "scruff": "stubble"}, none=0.55),
        "glasses": optional("glasses", {"round": "round glasses", "square": "square glasses"}, none=0.6),
        "earrings": optional("earrings", {"hoop": "an earring"}, none=0.8),
        "nose": values("nose", {"curve": "", "pointed": "", "tound": ""}),
    },
    varying={
        "expression": values("mouth", {
            "smile": "smiling", "laughing": "laughing", "surprised": "surprised", "nervous": "nervous",
            "frown": "sad", "pucker": "kissing", "smirk": "smirking",
        }),
        "eyes": {
            "eyes": Value("", {"eyes": ["eyes"]}, weight=2),
            "round": Value("round eyes", {"eyes": ["round"]}),
            "smiling": Value("happy eyes", {"eyes": ["smiling"]}),
        },
        "brows": values("eyebrows", {"up": "", "down": "", "eyelashesUp": ""}),
        "clothes": values("shirt", {"open": "shirt", "crew": "sweater", "collared": "collared shirt"}),
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
        "hair": values("hair", {"ponyTail": "a {} ponytail", "long": "long {} hair"}, "woman", weight=2)
        | values("hair", {
            "slaughter": "thin {} hair", "curly": "curly {} hair", "stylish": "swept {} hair", "elvis": "a {} quiff",
            "classic02": "short {} hair", "classic01": "combed {} hair",
        }),
        "facial_hair": optional("mustache", {
            "pencilThinBeard": "a goatee", "pencilThin": "a thin moustache", "horshoe": "a long moustache",
            "freddy": "a moustache",
        }, none=0.5),
        "glasses": optional("glasses", {"normal": "round glasses"}, none=0.65),
        "head": values("head", {"normal": "", "wide": "", "thin": ""}),
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
        "blushes": optional("blushes", {"default": "red cheeks"}, none=0.7),
        "clothes": values("body", {"tShirt": "t-shirt", "golf": "turtleneck"}),
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
        "hair": values("head", _PEEPS_BLACK, "woman") | values("head", _PEEPS_BLACK_SHORT)
        | values("head", _PEEPS_COLOURED, "woman", 2) | values("head", _PEEPS_COLOURED_SHORT, weight=2),
        "facial_hair": optional("facialHair", {
            "full": "a black beard", "goatee1": "a black goatee", "moustache5": "a black moustache",
        }, none=0.5),
        "glasses": optional("accessories", {
            "glasses2": "round glasses", "glasses3": "glasses", "sunglasses": "sunglasses",
        }, none=0.6),
    },
    varying={
        "expression": values("face", {
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
        "hair": values("hair", {
            "long19": "a {} ponytail", "long17": "long wavy {} hair", "long16": "a {} braid", "long15": "{} pigtails",
            "long23": "{} hair in two buns", "long07": "long straight {} hair", "long05": "a {} bob",
            "long11": "a {} bun",
        }, "woman")
        | values("hair", {
            "short16": "spiky {} hair", "short15": "a {} mohawk", "short11": "short {} hair",
            "short03": "curly {} hair", "short01": "short messy {} hair", "short19": "a bald head",
        }),
        "glasses": optional("glasses", {"variant01": "sunglasses", "variant02": "square glasses",
                                         "variant05": "round glasses"}, none=0.6),
        "features": optional("features", {"freckles": "freckles", "blush": "red cheeks"}, none=0.7),
    },
    varying={
        "expression": values("mouth", {
            "variant26": "laughing", "variant22": "grinning", "variant18": "surprised", "variant16": "cheeky",
            "variant09": "calm", "variant04": "sad",
        }),
        "eyes": values("eyes", {"variant26": "", "variant24": "", "variant02": ""})
        | values("eyes", {"variant19": "closed eyes"}, weight=0.6),
        "brows": values("eyebrows", {"variant10": "", "variant08": "", "variant11": ""}),
    },
    fixed={"earringsProbability": 0, "hairProbability": 100},
    colours={"hairColor": "hair_colour", "skinColor": "skin"},
    weight=0.06,
)  # fmt: skip
