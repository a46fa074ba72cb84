"""The corpus of drawn people: captions say what the genes say, and what is held out stays out. No test needs Node."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from demo.people import objects, styles
from demo.people.captions import EVERYTHING, person_words, who_words, with_article
from demo.people.corpus import read_records, scene_records, write_records
from demo.people.genes import (
    CLOTHES_COLOURS,
    COLOURS,
    Person,
    Style,
    draw_identity,
    draw_look,
    is_held_out,
    make_person,
)
from demo.people.portraits import portraits, unseen_identities
from demo.people.scenes import GROUNDS, HEIGHT, POOLS, TRAINING, UNSEEN_PEOPLE, UNSEEN_STYLES, Record, draw_scene

ALL_STYLES = pytest.mark.parametrize("style", styles.STYLES.values(), ids=list(styles.STYLES))
SCENES = [draw_scene(TRAINING, 3, number) for number in range(400)]


def people(style: Style, count: int = 60) -> list[Person]:
    rng = np.random.RandomState(5)
    return [make_person(style, draw_identity(style, rng), draw_look(style, rng)) for _ in range(count)]


def persons_of(record: Record) -> list[Record]:
    return [part for part in record["parts"] if part["kind"] == "person"]


def clothes_colours(words: str) -> list[str]:
    return re.findall(rf" in an? ({'|'.join(CLOTHES_COLOURS)}) [a-z]", words)


@ALL_STYLES
def test_a_full_caption_says_every_gene_that_has_words(style: Style) -> None:
    for person in people(style):
        words = person_words(person, np.random.RandomState(0), EVERYTHING, style=True)
        hides_eyes = "sunglasses" in words
        for gene in person.genes:
            value = person.value(gene)
            said = value.words if value else ""
            if gene == "eyes" and hides_eyes:
                continue
            assert said.format(person.genes.get("hair_colour", "")) in words
        assert style.word in words


@ALL_STYLES
def test_a_caption_names_no_other_colour_than_the_genes(style: Style) -> None:
    for person in people(style):
        words = person_words(person, np.random.RandomState(0), EVERYTHING)
        assert clothes_colours(words) == [person.genes[gene] for gene in ("clothes_colour",) if gene in person.genes]
        skin = re.search(r"(\w+) skin", words)
        assert (skin[1] if skin else None) == person.genes.get("skin")


@ALL_STYLES
def test_every_gene_reaches_the_drawing(style: Style) -> None:
    for person in people(style):
        options = person.options()
        assert all(isinstance(value, int) or len(value) == 1 for value in options.values())
        for gene in person.genes:
            value = person.value(gene)
            assert value is None or value.options.items() <= options.items()
        for option, gene in style.colours.items():
            if gene in person.genes:
                assert options[option] == [COLOURS[gene][person.genes[gene]]]


def test_glasses_drawn_as_eyes_leave_no_other_eyes_to_speak_of() -> None:
    wearers = [person for person in people(styles.PERSONAS, 200) if person.genes["glasses"] != "none"]
    assert wearers
    for person in wearers:
        assert "eyes" not in person.genes
        assert person.options()["eyes"] == [person.genes["glasses"]]


def test_a_bald_head_has_no_hair_colour() -> None:
    bald = [p for p in people(styles.PERSONAS, 400) if p.genes["hair"] == "bald" and p.genes["facial_hair"] == "none"]
    assert bald
    assert all("hair_colour" not in person.genes for person in bald)


def test_a_beard_makes_a_man() -> None:
    for style in styles.TRAINED:
        bearded = [person for person in people(style) if person.genes.get("facial_hair", "none") != "none"]
        assert all(who_words(person) == "man" for person in bearded)


def test_a_scene_depends_on_its_seed_and_number_alone() -> None:
    few, many = scene_records(TRAINING, 3, 5), scene_records(TRAINING, 3, 20)
    assert json.dumps(few) == json.dumps(many[:5])
    assert few != scene_records(TRAINING, 4, 5)


def test_training_shows_nothing_that_is_held_out() -> None:
    held_out = {style.package for style in styles.HELD_OUT}
    for scene in SCENES:
        for part in scene.parts:
            if part["kind"] == "icon":
                assert not objects.is_held_out(part["word"])
            else:
                assert part["style"] not in held_out


@pytest.mark.parametrize("style", styles.TRAINED, ids=[style.package for style in styles.TRAINED])
def test_one_combination_in_eight_is_held_out_and_pools_keep_to_it(style: Style) -> None:
    rng = np.random.RandomState(1)
    identities = [draw_identity(style, rng) for _ in range(1500)]
    assert 0.06 < np.mean([is_held_out(style, identity) for identity in identities]) < 0.2
    for pool in (TRAINING, UNSEEN_PEOPLE):
        for _ in range(30):
            person = pool.person(rng, style)
            # A colour that cannot be seen is no gene any more; the rule was asked before.
            if "hair_colour" in person.genes:
                assert is_held_out(style, person.genes) == pool.held_out


def test_unseen_pools_show_unseen_objects_and_styles() -> None:
    for number in range(100):
        for part in draw_scene(UNSEEN_STYLES, 1, number).parts:
            assert part.get("style") in {None, "big-smile", "lorelei", "notionists"}
            assert part["kind"] == "person" or objects.is_held_out(part["word"])
    assert 5 < len(objects.HELD_OUT) < 20
    assert not set(objects.HELD_OUT) & set(objects.TRAINED)


def test_scenes_have_one_to_three_figures_three_sizes_and_overlaps() -> None:
    assert {scene.width for scene in SCENES} == {128, 160, 192}
    assert {sum(part["kind"] == "person" for part in scene.parts) for scene in SCENES} == {0, 1, 2, 3}
    pairs = [persons_of(s.record("x")) for s in SCENES if sum(p["kind"] == "person" for p in s.parts) == 2]
    distances = [abs(one["x"] - other["x"]) / min(one["size"], other["size"]) for one, other in pairs]
    assert min(distances) < 0.6
    assert max(distances) > 0.8


def test_left_and_right_in_a_caption_are_left_and_right_in_the_picture() -> None:
    checked = 0
    for scene in SCENES:
        match = re.match(r"(.+) on the left and (.+) on the right", scene.caption)
        parts = sorted(persons_of(scene.record("x")), key=lambda part: part["x"] + part["size"] / 2)
        if not match or len(parts) != 2:
            continue
        for words, part in zip(match.groups(), parts, strict=True):
            person = Person(styles.STYLES[part["style"]], part["genes"])
            assert clothes_colours(words) in ([], [person.genes.get("clothes_colour")])
            assert person.style.word in words or not any(style.word in words for style in styles.TRAINED)
            checked += 1
    assert checked > 40


def test_the_ground_in_a_caption_is_the_pictures() -> None:
    for scene in SCENES:
        match = re.search(r"on an? (\w+) background", scene.caption)
        assert match is None or match[1] == scene.ground
        assert scene.record("x")["ground_colour"] == f"#{GROUNDS[scene.ground]}"


def test_figures_stand_on_the_lower_edge_and_objects_lie_within_the_picture() -> None:
    for scene in SCENES:
        for part in scene.parts:
            if part["kind"] == "person":
                assert part["y"] + part["size"] == pytest.approx(HEIGHT)
            else:
                assert part["x"] > -4 and part["x"] + part["size"] < scene.width + 4


def test_articles() -> None:
    assert with_article("angry man") == "an angry man"
    assert with_article("smiling man") == "a smiling man"


def test_records_survive_the_file(tmp_path: Path) -> None:
    records = scene_records(POOLS["unseen_people"], 1, 10)
    write_records(records, tmp_path / "scenes.jsonl")
    assert read_records(tmp_path / "scenes.jsonl") == records


def test_the_renderers_packages_have_exact_versions() -> None:
    package = json.loads((Path(styles.__file__).parent / "package.json").read_text(encoding="utf-8"))
    drawn = {f"@dicebear/{name}" for name in styles.STYLES} | {f"@iconify-json/{name}" for name in objects.ICON_SETS}
    assert drawn <= set(package["dependencies"])
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())


def test_unseen_identities_are_held_out_and_unlike_each_other() -> None:
    people = unseen_identities(24, seed=0)
    assert [style.package for style, _ in people[:6]] == [style.package for style in styles.TRAINED]
    assert all(is_held_out(style, identity) for style, identity in people)
    keys = {(style.package, identity["hair"], identity["hair_colour"], identity["skin"]) for style, identity in people}
    assert len(keys) == 24
    assert people == unseen_identities(24, seed=0)


def test_portraits_of_a_person_keep_the_identity_and_vary_the_rest() -> None:
    for style, identity in unseen_identities(6, seed=0):
        scenes = portraits(style, identity, 10, seed=1)
        genes = [scene.parts[0]["genes"] for scene in scenes]
        for gene in identity:
            assert len({drawn.get(gene) for drawn in genes}) == 1
        assert len({json.dumps([drawn.get(gene) for gene in style.varying]) for drawn in genes}) > 2
        assert len({scene.ground for scene in scenes}) == len(GROUNDS)
