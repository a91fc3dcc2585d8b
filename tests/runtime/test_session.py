"""Sessions: what is carried from turn to turn, undone, branched, saved, let go, refused."""

from __future__ import annotations

import json
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Cancelled, ImageError, Kontext, KontextError, Latents, RequestError, Session
from kontext_trt.runtime.turn import Carry, Turn

STEPS = 2


@pytest.fixture
def session(kontext: Kontext, picture) -> Session:
    return kontext.session(picture(128, 128))


def edit(session: Session, prompt: str = "make it blue", **keywords) -> Turn:
    return session.edit(prompt, **{"steps": STEPS, "seed": 0, **keywords})


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


class TestCarrying:
    def test_a_turn_edits_the_latents_of_the_turn_before(self, kontext: Kontext, session: Session, picture) -> None:
        first, second = edit(session), edit(session, "remove the tree")
        whole = kontext.edit(picture(128, 128), "make it blue", steps=STEPS, seed=0)
        by_hand = kontext.edit(whole.as_reference(), "remove the tree", steps=STEPS, seed=0)
        assert (first.carry, first.reason, second.carry, second.reason) == (Carry.LATENTS, "", Carry.LATENTS, "")
        assert np.array_equal(second.latents, by_hand.outputs[0].latents)
        assert second.request["reference"] == "128x128, latents of an earlier result"

    def test_or_its_pixels(self, kontext: Kontext, picture) -> None:
        with kontext.session(picture(128, 128), carry="pixels") as session:
            first, second = edit(session), edit(session, "remove the tree")
        by_hand = kontext.edit(first.picture(), "remove the tree", steps=STEPS, seed=0)
        assert np.array_equal(second.latents, by_hand.outputs[0].latents)
        assert not np.array_equal(
            second.latents, kontext.edit(_latents(first), "remove the tree", steps=STEPS, seed=0).outputs[0].latents
        )

    def test_or_one_turns_own_choice(self, session: Session) -> None:
        edit(session)
        assert edit(session, carry="pixels").request["reference"] == "128x128 -> 128x128 (resize)"

    def test_or_any_earlier_turn(self, session: Session) -> None:
        first, _ = edit(session), edit(session, "remove the tree")
        again = edit(session, "add a tree", of=first.number)
        assert [turn.number for turn in session.history] == [1, 3]
        assert again.parent == 1
        of_the_picture = edit(session, of=0)
        assert np.array_equal(of_the_picture.latents, first.latents)

    @pytest.mark.parametrize(
        ("asked", "reason"),
        [
            ({"size": (96, 96)}, "96x96 is asked for, and its latents are of 128x128"),
            ({"fit": "pad"}, "a fit is asked for"),
            ({"references": "stitch", "beside": [Image.new("RGB", (64, 64))]}, "references are stitched"),
            ({"mask": (0, 0, 32, 32), "crop": "mask"}, "a crop of it is edited"),
        ],
    )
    def test_pixels_are_fallen_back_to_with_the_reason(self, session: Session, asked: dict, reason: str) -> None:
        edit(session)
        turn = edit(session, **asked)
        assert turn.carry is Carry.PIXELS
        assert reason in turn.reason
        assert reason in turn.describe()

    def test_after_a_crop_the_picture_is_carried(self, kontext: Kontext, picture) -> None:
        """Its latents are of the crop alone."""
        with kontext.session(picture(256, 256)) as session:
            cropped = edit(session, mask=(10, 10, 40, 40), crop="mask")
            assert (cropped.size, cropped.picture().size, cropped.latents) == ((128, 128), (256, 256), None)
            assert "no latents of its picture's size" in edit(session).reason

    def test_a_mask_keeps_latents_and_pixels(self, session: Session) -> None:
        """Outside it both are the turn before's, bit for bit, so nothing wears out there."""
        before = edit(session)
        after = edit(session, "remove the tree", mask=(0, 0, 64, 64))
        assert after.carry is Carry.LATENTS
        kept = np.ones((128, 128), bool)
        kept[:64, :64] = False
        assert np.array_equal(np.asarray(after.picture())[kept], np.asarray(before.picture())[kept])
        tokens = kept[8::16, 8::16].ravel()
        assert before.latents is not None
        assert after.latents is not None
        assert np.array_equal(after.latents[tokens], before.latents[tokens])
        assert not np.array_equal(after.latents[~tokens], before.latents[~tokens])

    def test_further_references_lie_beside_it(self, session: Session, picture) -> None:
        edit(session)
        turn = edit(session, beside=[picture(96, 192, seed=3)])
        assert turn.request["reference"] == [
            "128x128, latents of an earlier result",
            "96x192 -> 96x192 (resize)",
        ]


class TestTree:
    def test_undo_and_redo(self, session: Session) -> None:
        first, second = edit(session), edit(session, "remove the tree")
        assert session.undo() is first
        assert same(session.image, first.picture())
        assert session.undo() is None
        assert session.history == ()
        assert session.redo() is first
        assert session.redo() is second
        with pytest.raises(RequestError, match="there is no turn to do again"):
            session.redo()

    def test_there_is_an_end_to_undoing(self, session: Session) -> None:
        with pytest.raises(RequestError, match="there is no turn to undo: this is the session's own picture"):
            session.undo()

    def test_what_is_undone_stays(self, session: Session) -> None:
        first, undone = edit(session), edit(session, "remove the tree")
        session.undo()
        other = edit(session, "add a tree")
        assert session.history == (first, other)
        assert session.turns == (first, undone, other)
        assert session.go_to(2) is undone

    def test_branches_do_not_see_each_other(self, session: Session) -> None:
        first = edit(session)
        branch = session.branch()
        ours, theirs = edit(session, "remove the tree"), edit(branch, "add a tree")
        assert session.history == (first, ours)
        assert branch.history == (first, theirs)
        assert ours.number == theirs.number == 2

    def test_an_undone_turn_made_again_is_the_same(self, session: Session) -> None:
        edit(session)
        once = edit(session, "remove the tree")
        session.undo()
        assert np.array_equal(edit(session, "remove the tree").latents, once.latents)

    def test_turns_that_are_not_there(self, session: Session) -> None:
        with pytest.raises(RequestError, match="there is no turn 7; there are 0, the picture, to 0"):
            session.go_to(7)
        with pytest.raises(RequestError, match="there is no turn -1"):
            edit(session, of=-1)


class TestFailing:
    def test_a_turn_that_is_cancelled_changes_nothing(self, session: Session) -> None:
        first, cancel = edit(session), threading.Event()
        with pytest.raises(Cancelled):
            edit(session, "x", steps=4, cancel=cancel, on_step=lambda done, of: cancel.set() if done == 2 else None)
        assert session.history == (first,)
        assert edit(session, "remove the tree").number == 2

    def test_one_picture_per_turn(self, session: Session) -> None:
        with pytest.raises(RequestError, match="a turn makes one picture, so it takes one prompt and one seed"):
            edit(session, seed=[1, 2])

    def test_other_words(self, kontext: Kontext, session: Session, picture) -> None:
        with pytest.raises(RequestError, match="carry"):
            kontext.session(picture(32, 32), carry="by hand")
        with pytest.raises(ImageError, match="cannot be read"):
            kontext.session("nothing.png")
        with pytest.raises(TypeError, match="wings"):
            edit(session, wings=2)

    def test_a_closed_one(self, session: Session) -> None:
        with session:
            edit(session)
        assert session.turns == ()
        with pytest.raises(RequestError, match="this session is closed"):
            edit(session)

    def test_latents_must_fit_their_size(self) -> None:
        with pytest.raises(RequestError, match=r"latents of 32x32 are a float array \(4, channels\), not float32 \(5,"):
            Latents(tokens=np.zeros((5, 64), np.float32), size=(32, 32))
        with pytest.raises(RequestError, match="not list"):
            Latents(tokens=[0.0], size=(32, 32))  # pyright: ignore[reportArgumentType]
        with pytest.raises(RequestError, match="latents must be finite"):
            Latents(tokens=np.full((4, 64), np.nan, np.float32), size=(32, 32))
        with pytest.raises(RequestError, match="do not decode to a picture of 16x16"):
            Latents(tokens=np.zeros((4, 64), np.float32), size=(32, 32), image=Image.new("RGB", (16, 16)))

    def test_latents_of_another_model(self, kontext: Kontext) -> None:
        foreign = Latents(tokens=np.zeros((4, 128), np.float32), size=(32, 32))
        with pytest.raises(RequestError, match="latents of 128 channels are of another model: this one's have 64"):
            kontext.edit(foreign, "x", steps=1)

    def test_latents_without_their_picture_take_no_mask(self, kontext: Kontext) -> None:
        bare = Latents(tokens=np.zeros((4, 64), np.float32), size=(32, 32))
        with pytest.raises(RequestError, match="a mask pastes an edit on a picture, and these latents came without"):
            kontext.edit(bare, "x", steps=1, mask=(0, 0, 8, 8))


class TestMemory:
    def test_each_turn_takes_its_picture_and_its_latents(self, session: Session) -> None:
        assert edit(session).size_bytes == 128 * 128 * 4 + 64 * 64 * 4
        assert session.size_bytes == 2 * 128 * 128 * 4 + 64 * 64 * 4

    def test_what_is_too_much_is_let_go(self, kontext: Kontext, picture) -> None:
        """Off the history first, then the oldest; the picture that was given and the current one never."""
        each = 128 * 128 * 4 + 64 * 64 * 4
        with kontext.session(picture(128, 128), kept_bytes=128 * 128 * 4 + 2 * each) as session:
            first, undone = edit(session), edit(session)
            session.undo()
            third = edit(session)
            assert [turn.image is not None for turn in session.turns] == [True, False, True]
            fourth = edit(session)
            assert [turn.image is not None for turn in session.turns] == [False, False, True, True]
            assert session.history == (session.turns[0], third, fourth)
            assert session.turns[0].prompt == first.prompt
            for number in (first.number, undone.number):
                with pytest.raises(RequestError, match=f"turn {number} was let go to stay within the session's memory"):
                    session.go_to(number)

    def test_it_stays_flat_over_many_turns(self, kontext: Kontext, picture) -> None:
        _flat(kontext, picture, turns=24)

    @pytest.mark.check
    def test_it_stays_flat_over_100_turns(self, kontext: Kontext, picture) -> None:
        _flat(kontext, picture, turns=100)


def _flat(kontext: Kontext, picture, turns: int) -> None:
    """Once as much is kept as may be, further turns add what a few hundred bytes of words take."""
    size = 32 * 32 * 4 + 4 * 64 * 4
    with kontext.session(picture(32, 32), kept_bytes=8 * size) as session:
        tracemalloc.start()
        try:
            for number in range(turns):
                if number == turns // 2:
                    half = tracemalloc.get_traced_memory()[0]
                edit(session, steps=1, size=(32, 32))  # one prompt: those encoded last are the Kontext's to keep
                assert session.size_bytes <= 8 * size
            grown = tracemalloc.get_traced_memory()[0] - half
        finally:
            tracemalloc.stop()
        assert len(session.turns) == turns
        assert grown < (turns - turns // 2) * 8000


class TestFile:
    def test_it_opens_as_it_was(self, kontext: Kontext, session: Session, tmp_path: Path) -> None:
        for prompt in ("make it blue", "remove the tree", "add a tree"):
            edit(session, prompt)
        session.undo()
        opened = kontext.open_session(session.save(tmp_path / "new" / "cat.session"))
        assert [turn.number for turn in opened.history] == [1, 2]
        assert same(_start(opened), _start(session))
        for ours, theirs in zip(session.turns, opened.turns, strict=True):
            assert dict(ours.request) == dict(theirs.request)
            assert (ours.parent, ours.carry, ours.reason, ours.size) == (
                theirs.parent, theirs.carry, theirs.reason, theirs.size
            )  # fmt: skip
            assert same(ours.picture(), theirs.picture())
            assert np.array_equal(ours.latents, theirs.latents)
        opened.go_to(2)
        assert np.array_equal(edit(opened, "add a tree").latents, session.turns[2].latents)
        assert opened.turns[-1].number == 4

    def test_large_seeds_are_kept(self, kontext: Kontext, session: Session, tmp_path: Path) -> None:
        edit(session, seed=2**64 - 1)
        assert kontext.open_session(session.save(tmp_path / "s.session")).turns[0].seed == 2**64 - 1

    def test_pictures_name_their_chain(self, session: Session, tmp_path: Path) -> None:
        edit(session)
        edit(session, "remove the tree")
        with Image.open(session.save_image(tmp_path / "a.png")) as image:
            said = json.loads(image.info["kontext-trt"])
        assert said["prompt"] == "remove the tree"
        assert [one["prompt"] for one in said["chain"]] == ["make it blue"]
        assert said["chain"][0]["reference"] == "128x128 -> 128x128 (resize)"

    def test_nothing_was_edited_yet(self, session: Session, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="nothing was edited yet"):
            session.save_image(tmp_path / "a.png")

    def test_another_bundle_is_warned_about(
        self, kontext: Kontext, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        saved = session.save(tmp_path / "s.session")
        rewrite(saved, lambda found: {**found, "bundle": "another"})
        kontext.open_session(saved)
        assert "was made with another bundle" in caplog.text

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda found: {**found, "schema": 2}, "its schema is 2, this version reads 1"),
            (lambda found: {**found, "head": 5}, "it stands at turn 5, which it does not have"),
            (lambda found: {**found, "carry": "by hand"}, "carry"),
            (lambda found: {**found, "made_from": ["cat.png"]}, "made_from"),
            (lambda found: {**found, "turns": [{**found["turns"][0], "parent": 1}]}, "turn 1 does not follow"),
            (lambda found: {**found, "turns": [{**found["turns"][0], "request": {}}]}, "turn 1 has no prompt"),
            (lambda found: {**found, "turns": [{**found["turns"][0], "size": [64, 64]}]}, "1.npy is not float32 of 16"),
            (lambda found: {**found, "turns": [{**found["turns"][0], "size": [5, 5]}]}, "size 5x5 is not possible"),
            (lambda _: [], "object"),
        ],
    )
    def test_what_is_no_session_is_refused(
        self, kontext: Kontext, session: Session, tmp_path: Path, change, reason: str
    ) -> None:
        edit(session)
        saved = session.save(tmp_path / "s.session")
        rewrite(saved, change)
        with pytest.raises(RequestError, match=reason):
            kontext.open_session(saved)

    @pytest.mark.parametrize("name", ["session.json", "0.png", "1.png", "1.npy"])
    def test_what_lacks_a_part_or_has_another(
        self, kontext: Kontext, session: Session, tmp_path: Path, name: str
    ) -> None:
        edit(session)
        saved = session.save(tmp_path / "s.session")
        replace(saved, name, None)
        with pytest.raises(RequestError, match=f"it has no {name}"):
            kontext.open_session(saved)
        replace(saved, name, b"not what it is called")
        with pytest.raises(RequestError, match=r"s\.session"):
            kontext.open_session(saved)

    def test_what_is_compressed_is_not_expanded(self, kontext: Kontext, session: Session, tmp_path: Path) -> None:
        saved = session.save(tmp_path / "s.session")
        replace(saved, "0.png", b"\0" * 1000, zipfile.ZIP_DEFLATED)
        with pytest.raises(RequestError, match=r"its 0\.png is of 1,000 bytes, or compressed"):
            kontext.open_session(saved)

    def test_what_is_no_archive(self, kontext: Kontext, tmp_path: Path) -> None:
        (tmp_path / "s.session").write_bytes(b"PK\x03\x04 no archive")
        for name in ("s.session", "absent.session"):
            with pytest.raises(RequestError, match=f"{name} cannot be read as a session"):
                kontext.open_session(tmp_path / name)

    def test_where_nothing_can_be_written(self, session: Session, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RequestError, match="cannot be written"):
            session.save(tmp_path / "file" / "s.session")


def test_two_sessions_take_turns(kontext: Kontext, picture) -> None:
    """Each gets what it would have got alone."""
    alone = []
    for seed in (1, 2):
        with kontext.session(picture(128, 128, seed=seed)) as session:
            alone.append([edit(session, prompt).latents for prompt in ("make it blue", "remove the tree")])
    found: dict[int, list] = {}

    def use(seed: int) -> None:
        with kontext.session(picture(128, 128, seed=seed)) as session:
            found[seed] = [edit(session, prompt).latents for prompt in ("make it blue", "remove the tree")]

    threads = [threading.Thread(target=use, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, latents in zip((1, 2), alone, strict=True):
        for ours, theirs in zip(latents, found[seed], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_closed_kontext_ends_its_sessions(bundle_path: Path, picture) -> None:
    with Kontext.open(bundle_path) as opened:
        session = opened.session(picture(32, 32))
    with pytest.raises(KontextError, match="this Kontext is closed"):
        edit(session)


def rewrite(archive: Path, change) -> None:
    """Change the description in a session's file."""
    with zipfile.ZipFile(archive) as opened:
        found = json.loads(opened.read("session.json"))
    replace(archive, "session.json", json.dumps(change(found)).encode())


def replace(archive: Path, name: str, data: bytes | None, kind: int = zipfile.ZIP_STORED) -> None:
    """Write a member of an archive anew, or leave it out."""
    with zipfile.ZipFile(archive) as opened:
        members = {one: opened.read(one) for one in opened.namelist() if one != name}
    with zipfile.ZipFile(archive, "w") as opened:
        for one, content in members.items():
            opened.writestr(one, content)
        if data is not None:
            opened.writestr(name, data, kind)


def _latents(turn: Turn) -> Latents:
    found = turn.as_reference()
    assert found is not None
    return found


def _start(session: Session) -> Image.Image:
    branch = session.branch()
    branch.go_to(0)
    return branch.image


@pytest.mark.parametrize("kept_bytes", [-1, 0.5, "1GiB", None, True])
def test_kept_bytes_are_a_whole_number(kontext: Kontext, picture, kept_bytes) -> None:
    with pytest.raises(RequestError, match="kept_bytes must be a whole number of bytes from 0 on, not"):
        kontext.session(picture(32, 32), kept_bytes=kept_bytes)


def test_one_reference_beside_may_come_without_a_list(session: Session, picture, tmp_path: Path) -> None:
    beside = picture(96, 192, seed=1)
    beside.save(tmp_path / "beside.png")
    found = [edit(session, of=0, beside=one) for one in ([beside], beside, str(tmp_path / "beside.png"))]
    assert [turn.latents.tolist() for turn in found] == [found[0].latents.tolist()] * 3
    with pytest.raises(ImageError, match=r"a picture must be a path.* not int"):
        edit(session, of=0, beside=3)


def test_a_size_that_is_none_is_said(session: Session) -> None:
    edit(session)
    with pytest.raises(RequestError, match=r"a size is two whole numbers, \(width, height\), not 5"):
        edit(session, size=5)
