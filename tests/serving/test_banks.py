"""Banks of examples over HTTP: made, used, changed and moved by clients, and bounded."""

import base64
import json
import os
import time

import numpy as np
import pytest

import deop
from deop.bank import Bank, Box, Click, learn
from deop.serving.banks import Banks, StoredBank
from deop.serving.limits import Limits
from deop.serving.problems import Problem
from deop.serving.work import Worker
from tests.bank.desk import OBJECTS, render
from tests.bank.small import bank_of, clusters, huge
from tests.serving.conftest import ThreadLane, png, problem

TOKENS = ["a-token-of-the-tests-0123456789", "b-token-of-the-tests-0123456789"]


@pytest.fixture(scope="module")
def desk():
    """Two photos of a desk as PNG, their arrays and masks."""
    photos = [render(number) for number in (0, 5)]
    return [(png(photo), photo, masks) for photo, masks in photos]


def encode(client, photo, **options):
    return client.post("/v1/encode", content=photo, **options).json()["id"]


def create(client, content=b"", **options):
    answer = client.post("/v1/banks", content=content, **options)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/banks/{answer.json()['id']}"
    return answer.json()["id"]


def teach(client, bank, photo, *examples, **options):
    body = {"id": photo, "examples": list(examples), **options}
    return client.post(f"/v1/banks/{bank}/examples", json=body)


def read(client, bank):
    return Bank.from_bytes(client.get(f"/v1/banks/{bank}/file").content)


def centre(mask):
    row, column = np.argwhere(mask).mean(0)
    return [float(column), float(row)]


def run_lengths(mask):
    from deop.images.rle import compress_counts, encode_crop

    return {"size": list(mask.shape), "counts": compress_counts(encode_crop(mask, 0, 0, mask.shape))}


def test_what_is_taught_is_what_python_learns(serve, model, desk):
    """Masks as run lengths and as PNG, boxes and clicks; the file of the server is that of Python."""
    content, photo, masks = desk[0]
    widget, zindle, blorp = (masks[name] for name in OBJECTS)
    rows, columns = np.nonzero(blorp)
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    expected = learn(
        model, photo, [widget, zindle, Box(*box), Click(*centre(widget))], ["widget-a", "zindle", "-blorp", "widget-a"]
    )
    picture = base64.b64encode(png(zindle[..., None].repeat(3, 2) * 255)).decode()
    with serve() as client:
        bank = create(client)
        assert client.get(f"/v1/banks/{bank}").json() == {
            "id": bank, "given": False, "names": [], "regions": 0, "photos": 0, "bytes": 0,
        }  # fmt: skip
        answer = teach(
            client, bank, encode(client, content),
            {"name": "widget-a", "mask": run_lengths(widget)}, {"name": "zindle", "mask": picture},
            {"name": "blorp", "negative": True, "box": box}, {"name": " widget-a ", "click": centre(widget)},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        summary = answer.json()
        assert read(client, bank) == expected
        assert [entry["name"] for entry in summary["names"]] == ["-blorp", "widget-a", "zindle"]
        assert (summary["regions"], summary["photos"]) == (len(expected), 1)
        counts = {entry["name"]: (entry["regions"], entry["photos"]) for entry in summary["names"]}
        assert counts == {name: count for name, count in expected.counts().items() if name}
        assert client.get(f"/v1/banks/{bank}").json() == summary
        file = client.get(f"/v1/banks/{bank}/file")
        assert len(file.content) == summary["bytes"]
        assert "bank.safetensors" in file.headers["content-disposition"]


def test_a_form_with_a_photo(serve, model, desk):
    content, photo, masks = desk[0]
    widget = masks["widget-a"]
    spot = ",".join(map(str, centre(widget)))
    with serve() as client:
        for fields, files, marks in (
            ({"name": "widget-a", "click": spot}, {}, Click(*centre(widget))),
            ({"name": "widget-a"}, {"mask": png(widget * 255)}, widget),
            ({"examples": json.dumps([{"name": "widget-a", "box": [9, 9, 90, 90]}])}, {}, Box(9, 9, 90, 90)),
        ):
            bank = create(client)
            answer = client.post(f"/v1/banks/{bank}/examples", data=fields, files={"photo": content, **files})
            assert answer.status_code == 200, answer.text
            assert read(client, bank) == learn(model, photo, [marks], ["widget-a"])
        bank = create(client)
        fields = {"name": "cup", "negative": "true", "click": spot}
        client.post(f"/v1/banks/{bank}/examples", data=fields, files={"photo": content})
        assert [entry["name"] for entry in client.get(f"/v1/banks/{bank}").json()["names"]] == ["-cup"]


def test_a_correction_costs_no_second_pass(serve, model, desk, monkeypatch):
    """A segment of an answer is sent back with another name; the photo and the next one follow."""
    (content, _, masks), (second, _, others) = desk
    names = "widget-a, table, paper"
    passes = []
    encode_photos = model.encode

    def count(photos, *args, **options):
        passes.append(len(photos))
        return encode_photos(photos, *args, **options)

    with serve() as client:
        keys = [encode(client, photo) for photo in (content, second)]
        client.post("/v1/label", json={"id": keys[0], "names": names, "bank": create(client)})  # an empty bank
        bank = create(client)
        assert (
            teach(client, bank, keys[0], {"name": "widget-a", "mask": run_lengths(masks["widget-a"])}).status_code
            == 200
        )
        monkeypatch.setattr(model, "encode", count)
        for key, truth in zip(keys, (masks, others), strict=True):
            answer = client.post("/v1/label", json={"id": key, "names": names, "bank": bank}).json()
            found = decoded(answer, "widget-a")
            assert iou(found, truth["widget-a"]) > 0.4
            assert answer["settings"]["bank"] == read(client, bank).digest[:16]
            zero = client.post("/v1/label", json={"id": key, "names": names, "bank": bank, "bank_weight": 0}).json()
            plain = client.post("/v1/label", json={"id": key, "names": names}).json()
            assert zero["segments"] == plain["segments"]
        assert not passes


def decoded(answer, name):
    from deop.images.rle import decode_rle

    found = np.zeros(answer["size"][::-1], bool)
    for segment in answer["segments"]:
        if segment["name"] == name:
            found |= decode_rle(segment["segmentation"]).astype(bool)
    return found


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_as_a_user_would(serve):
    """Five photos of a desk, each sent in a form and marked; then the objects are found in a sixth, without names."""
    with serve() as client:
        bank = create(client)
        for number in range(5):
            photo, masks = render(number)
            examples = json.dumps([{"name": name, "mask": run_lengths(masks[name])} for name in OBJECTS])
            answer = client.post(f"/v1/banks/{bank}/examples", data={"examples": examples}, files={"photo": png(photo)})
            assert answer.status_code == 200, answer.text
        photo, masks = render(5)
        fields = {"names": "widget-a, zindle, blorp, table, paper, pen", "bank": bank}
        answer = client.post("/v1/segment", params=fields, content=png(photo)).json()
        for name in OBJECTS:
            assert iou(decoded(answer, name), masks[name]) > 0.4
        alone = client.post("/v1/segment", params={"bank": bank}, content=png(photo)).json()
        assert alone["names"] == sorted(OBJECTS)
        picture = client.post("/v1/segment", params={"bank": bank}, content=png(photo), headers={"Accept": "image/png"})
        assert picture.headers["content-type"] == "image/png"


def test_a_photo_in_steps_or_at_once(serve, desk):
    content, _, masks = desk[0]
    examples = [{"name": name, "mask": run_lengths(masks[name])} for name in OBJECTS]
    with serve() as client:
        photo = encode(client, content)
        once, steps, again = create(client), create(client), create(client)
        teach(client, once, photo, *examples)
        for example in examples:
            teach(client, steps, photo, example)
            teach(client, again, photo, example)
        whole, stepped = read(client, once), read(client, steps)
        for name in OBJECTS:
            assert whole.counts()[name] == stepped.counts()[name]
        unmarked = stepped.regions[stepped.name_of == stepped.names.index("")].view(np.uint16)
        named = {row.tobytes() for row in stepped.regions[stepped.name_of != stepped.names.index("")].view(np.uint16)}
        assert not [row for row in unmarked if row.tobytes() in named], "what is marked later is unmarked no longer"
        teach(client, again, photo, *examples, replace=True)
        assert read(client, again) == whole
        assert teach(client, again, photo, replace=True).json()["regions"] == 0
        assert client.get(f"/v1/banks/{again}").json()["photos"] == 0


def test_files_forgetting_and_deletion(serve, model, desk, tmp_path):
    (content, photo, masks), (_, other, others) = desk
    first = learn(model, photo, [masks["zindle"]], ["zindle"])
    second = learn(model, other, [others["blorp"]], ["blorp"], note="mine")
    with serve() as client:
        bank = create(client, first.to_bytes())
        assert read(client, bank) == first
        answer = client.post(f"/v1/banks/{bank}", content=second.to_bytes())
        assert answer.status_code == 200, answer.text
        assert read(client, bank) == Bank.merged([first, second])
        answer = client.post(f"/v1/banks/{bank}/forget", json={"names": "zindle"})
        assert [entry["name"] for entry in answer.json()["names"]] == ["blorp"]
        assert "spoon" in problem(client.post(f"/v1/banks/{bank}/forget", json={"names": ["spoon"]}), 422)["detail"]
        path = tmp_path / "bank.safetensors"
        path.write_bytes(client.get(f"/v1/banks/{bank}/file").content)
        assert deop.load_bank(path).names == ("", "blorp")
        assert client.delete(f"/v1/banks/{bank}").status_code == 204
        for answer in (
            client.get(f"/v1/banks/{bank}"),
            client.get(f"/v1/banks/{bank}/file"),
            client.delete(f"/v1/banks/{bank}"),
            client.post(f"/v1/banks/{bank}", content=first.to_bytes()),
            client.post(f"/v1/banks/{bank}/forget", json={"names": ["cup"]}),
            teach(client, bank, "0-x", {"name": "cup", "click": [1, 1]}),
            client.post("/v1/segment", params={"names": "cat", "bank": bank}, content=content),
            client.post("/v1/label", json={"id": encode(client, content), "names": "cat", "bank": bank}),
        ):
            assert problem(answer, 404)["missing"] == "bank"
        bank = create(client)
        problem(client.get(f"/v1/banks/{bank}/file"), 409)
        assert problem(teach(client, bank, "0-x", {"name": "cup", "click": [1, 1]}), 404)["missing"] == "photo"
        assert problem(teach(client, bank, "x", {"name": "cup", "click": [1, 1]}), 404)["missing"] == "photo"


def test_banks_of_others_are_refused(serve, model, desk):
    _, photo, masks = desk[0]
    own = learn(model, photo, [masks["zindle"]], ["zindle"])
    data = own.to_bytes()
    with serve() as client:
        bank = create(client, data)
        for sent, status, text in (
            (bank_of(clusters(2)[0], ["cup"] * 12).to_bytes(), 422, "24 channels"),
            (own.with_space(other_precision(own.space)).to_bytes(), 422, "learned in int8"),
            (own.with_space(other_model(own.space)).to_bytes(), 422, "embeddings differ"),
            (b"hello, world", 422, "no header"),
            (data[:-2], 422, "the file"),
            (data[:-40] + bytes(40), 422, "damaged"),
            (huge(own)[0], 422, "its tensors end at byte"),
            (Bank.merged([own]).without_photos(own.photos).to_bytes(), 201, ""),
        ):
            answer = client.post("/v1/banks", content=sent)
            if status == 201:
                assert answer.json()["regions"] == 0
                continue
            assert text in problem(answer, status)["detail"]
            problem(client.post(f"/v1/banks/{bank}", content=sent), status)
        problem(client.post(f"/v1/banks/{bank}", content=b""), 422)
        clash = learn(model, photo, [masks["zindle"]], ["zindle|ring"])
        answer = problem(client.post(f"/v1/banks/{bank}", content=clash.to_bytes()), 422)
        assert "share a word" in answer["detail"]
        assert read(client, bank) == own, "nothing was changed"


def other_precision(space):
    from dataclasses import replace

    return replace(space, precision="int8")


def other_model(space):
    from dataclasses import replace

    return replace(space, probe=space.probe[:, ::-1].copy(), model="other")


@pytest.mark.parametrize(
    ("example", "text"),
    [
        ({"name": "cup"}, "one of click, box and mask"),
        ({"name": "cup", "click": [1, 1], "box": [1, 1, 2, 2]}, "one of click, box and mask"),
        ({"name": " ", "click": [1, 1]}, "blank"), ({"name": "", "click": [1, 1]}, "blank"),
        ({"name": "a||b", "click": [1, 1]}, "blank"), ({"name": 3, "click": [1, 1]}, "name"),
        ({"name": "x" * 2000, "click": [1, 1]}, "characters"), ({"click": [1, 1]}, "name"),
        ({"name": "cup", "click": [1, 1, 1]}, "click"), ({"name": "cup", "click": [320, 3]}, "outside the photo"),
        ({"name": "cup", "click": [-1, 3]}, "outside the photo"), ({"name": "cup", "click": "1,1"}, "click"),
        ({"name": "cup", "box": [5, 5, 5, 9]}, "empty"), ({"name": "cup", "box": [400, 5, 420, 9]}, "outside"),
        ({"name": "cup", "box": [1, 2, 3]}, "box"), ({"name": "cup", "mask": "%%"}, "base64"),
        ({"name": "cup", "mask": base64.b64encode(b"hello").decode()}, "photo"), ({"name": "cup", "mask": ""}, "empty"),
        ({"name": "cup", "mask": {"size": [240, 319], "counts": "0"}}, "319 x 240"),
        ({"name": "cup", "mask": {"size": [240, 320], "counts": "9"}}, ""),
        ({"name": "cup", "mask": {"size": [240, 320], "counts": [1, 2]}}, ""),
        ({"name": "cup", "mask": {"size": [240, 320], "counts": [76800]}}, "no photo has a marked region"),
        ({"name": "cup", "mask": {"size": [240], "counts": "0"}}, "mask"), ({"name": "cup", "colour": "red"}, ""),
        ({"name": "cup", "mask": base64.b64encode(png(np.ones((9, 9)))).decode()}, "9 x 9"),
    ],
)  # fmt: skip
def test_examples_that_mean_nothing(desk_client, example, text):
    client, bank, photo = desk_client
    answer = teach(client, bank, photo, example)
    status = 415 if answer.status_code == 415 else 422
    content = problem(answer, status, answer.json().get("limit"))
    assert text in content["detail"]
    assert client.get(f"/v1/banks/{bank}").json()["regions"] == 0


@pytest.fixture(scope="module")
def desk_client(desk, model):
    """A server, an empty bank and an encoded photo."""
    import io

    from starlette.testclient import TestClient

    from deop.serving.access import RequestLog
    from deop.serving.app import create_app

    worker = Worker(model, Limits(), "0-")
    app = create_app([ThreadLane(worker)], worker.describe(), log=RequestLog(io.StringIO()))
    with TestClient(app, base_url="http://localhost") as client:
        yield client, create(client), encode(client, desk[0][0])


def test_questions_about_banks(desk_client, desk):
    client, empty, photo = desk_client
    for fields, text in (
        ({"bank": empty}, "no examples yet"),
        ({"names": "cat", "bank_weight": 0.5}, "no effect"),
        ({"names": "cat", "bank": empty, "bank_weight": 2}, "bank_weight"),
        ({"names": "cat", "bank": ["x"] * 9}, "bank"),
        ({"names": "cat", "bank": 7}, "bank"),
    ):
        assert text in problem(client.post("/v1/label", json={"id": photo, **fields}), 422)["detail"]
    fields = {"names": "cat", "bank_weight": "high", "bank": empty}
    problem(client.post("/v1/segment", params=fields, content=desk[0][0]), 422)
    for body in (b"", b"{", b'{"id": "0-x"}', b'{"id": "0-x", "examples": 3}'):
        headers = {"Content-Type": "application/json"}
        answer = client.post(f"/v1/banks/{empty}/examples", content=body, headers=headers)
        problem(answer, 422)
    problem(client.post(f"/v1/banks/{empty}/examples", content=desk[0][0], headers={"Content-Type": "image/png"}), 415)
    for data, files in (
        ({"name": "cup", "click": "1,1"}, {"mask": b"x"}),
        ({"name": "cup", "click": "1,1", "examples": "[]"}, {"photo": desk[0][0]}),
        ({"name": "cup", "click": "a,b"}, {"photo": desk[0][0]}),
        ({"examples": "["}, {"photo": desk[0][0]}),
        ({"examples": '[], "replace": true, "x": 1'}, {"photo": desk[0][0]}),
        ({"name": "cup", "click": "1,1", "replace": "maybe"}, {"photo": desk[0][0]}),
        ({"name": "cup", "click": "nan,1"}, {"photo": desk[0][0]}),
    ):
        problem(client.post(f"/v1/banks/{empty}/examples", data=data, files=files), 422)


def test_all_methods_of_an_address_are_allowed(desk_client):
    client = desk_client[0]
    for path, methods in (("/v1/banks", "GET, POST"), ("/v1/banks/x", "DELETE, GET, POST"), ("/v1/label", "POST")):
        answer = client.put(path)
        problem(answer, 405)
        assert answer.headers["allow"] == methods


def test_limits_of_banks(serve, model, desk):
    content, photo, masks = desk[0]
    bank = learn(model, photo, [masks["zindle"]], ["zindle"])
    data = bank.to_bytes()
    with serve(limits=Limits(banks=2, bank_regions=len(bank), bank_bytes=2 * len(data))) as client:
        first, second = create(client, data), create(client, data)
        assert client.get(f"/v1/banks/{first}").status_code == 200  # used last
        third = create(client)
        assert client.get(f"/v1/banks/{second}").status_code == 404
        key = encode(client, content)
        example = {"name": "blorp", "mask": run_lengths(masks["blorp"])}
        problem(teach(client, first, key, example), 413, "bank_regions")
        assert read(client, first) == bank
        for name, limit in (("cup|" + "x" * 990, None), ("x" * 1001, "characters")):
            answer = teach(client, third, key, {**example, "name": name})
            assert answer.status_code == 200 if limit is None else problem(answer, 422, limit)
        body = {"id": key, "examples": [example] * 201}
        problem(client.post(f"/v1/banks/{third}/examples", json=body), 422, "examples")
        assert set(client.get("/v1/models").json()["models"][0]["limits"]) > {"banks", "bank_regions", "bank_bytes"}
    with serve(limits=Limits(bank_seconds=0.2)) as client:
        create(client, data)
        deadline = time.monotonic() + 20
        while "deop_banks 0.0" not in client.get("/metrics").text:  # also if nobody asks for it
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "deop_bank_bytes 0.0" in client.get("/metrics").text
    with serve(limits=Limits(bank_bytes=len(data) - 1)) as client:
        problem(client.post("/v1/banks", content=data), 413, "bank_bytes")
    with serve(limits=Limits(names=1)) as client:
        two = learn(model, photo, [masks["zindle"], masks["blorp"]], ["zindle", "blorp"])
        problem(client.post("/v1/banks", content=two.to_bytes()), 422, "names")


def test_banks_are_bounded_in_number_memory_and_time():
    now = [0.0]
    banks = Banks(Limits(banks=3, bank_bytes=100, bank_seconds=10), lambda: now[0])
    keys = [banks.create(StoredBank("d", bytes(40))) for _ in range(2)]
    assert banks.bytes == 80
    banks.get(keys[0])
    third = banks.create(StoredBank("e", bytes(60)))
    assert list(banks.all()) == [keys[0], third], "the one that was used longest ago made room"
    banks.replace(keys[0], StoredBank("f", bytes(41)))
    assert list(banks.all()) == [keys[0]]
    with pytest.raises(Problem):
        banks.replace(keys[0], StoredBank("f", bytes(101)))
    assert len(banks.get(keys[0]).content) == 41
    now[0] = 9
    banks.touch([keys[0], "unknown"])
    now[0] = 18
    assert list(banks.all()) == [keys[0]]
    now[0] = 30
    assert not banks.all()
    with pytest.raises(Problem):
        banks.get(keys[0])
    assert len({banks.create(StoredBank()) for _ in range(10)}) == 10
    assert len(banks) == 3


def test_a_bank_belongs_to_its_token(serve, model, desk):
    content, photo, masks = desk[0]
    data = learn(model, photo, [masks["zindle"]], ["zindle"]).to_bytes()
    first, second = ({"headers": {"Authorization": f"Bearer {token}"}} for token in TOKENS)
    with serve(tokens=TOKENS) as client:
        problem(client.post("/v1/banks"), 401)
        bank = create(client, data, **first)
        assert client.get(f"/v1/banks/{bank}", **first).status_code == 200
        for answer in (
            client.get(f"/v1/banks/{bank}", **second),
            client.get(f"/v1/banks/{bank}/file", **second),
            client.delete(f"/v1/banks/{bank}", **second),
            client.post("/v1/segment", params={"bank": bank}, content=content, **second),
        ):
            assert problem(answer, 404)["missing"] == "bank"
        assert client.post("/v1/segment", params={"bank": bank}, content=content, **first).status_code == 200


def test_banks_of_the_operator(serve, model, desk):
    content, photo, masks = desk[0]
    given = {"shop": learn(model, photo, [masks["zindle"]], ["zindle"])}
    limits = Limits()
    worker = Worker(model, limits, "0-", given)
    with serve(lane=ThreadLane(worker), description=worker.describe()) as client:
        (listed,) = client.get("/v1/banks").json()["banks"]
        assert (listed["id"], listed["given"]) == ("shop", True)
        assert client.get("/v1/banks/shop").json() == listed
        key = encode(client, content)
        answer = client.post("/v1/label", json={"id": key, "names": "zindle, table", "bank": "shop"}).json()
        assert iou(decoded(answer, "zindle"), masks["zindle"]) > 0.3
        for refused in (
            client.get("/v1/banks/shop/file"),
            client.delete("/v1/banks/shop"),
            client.post("/v1/banks/shop", content=b"x"),
            client.post("/v1/banks/shop/forget", json={"names": ["zindle"]}),
            teach(client, "shop", key, {"name": "cup", "click": [1, 1]}),
        ):
            problem(refused, 403)
        own = create(client)
        teach(client, own, key, {"name": "blorp", "mask": run_lengths(masks["blorp"])})
        both = client.post("/v1/label", json={"id": key, "bank": f"shop, {own}"}).json()
        assert both["names"] == ["blorp", "zindle"]
        clash = create(client)
        teach(client, clash, key, {"name": "zindle|ring", "mask": run_lengths(masks["zindle"])})
        problem(client.post("/v1/label", json={"id": key, "bank": ["shop", clash]}), 422)


def test_neither_log_nor_metrics_have_names_or_ids(serve, desk):
    content, _, masks = desk[0]
    secret = "zanzibar"
    with serve() as client:
        bank = create(client)
        key = encode(client, content)
        teach(client, bank, key, {"name": secret, "mask": run_lengths(masks["zindle"])})
        client.post("/v1/label", json={"id": key, "bank": bank})
        client.post("/v1/segment", params={"bank": bank}, content=content)
        client.get(f"/v1/banks/{bank}/file")
        client.get(f"/v1/banks/{bank}/{secret}")
        client.post(f"/v1/banks/{bank}/forget", json={"names": [secret]})
        client.post(f"/v1/banks/{bank}/forget", json={"names": [secret]})
        client.delete(f"/v1/banks/{bank}")
        for text in (client.log_text(), client.get("/metrics").text):
            for private in (secret, bank, key):
                assert private not in text
            assert "/v1/banks/{id}/file" in text


def test_a_worker_gets_a_bank_once(serve, model, desk, monkeypatch):
    """Contents go to a worker that does not have them, and not with every question."""
    content, photo, masks = desk[0]
    data = learn(model, photo, [masks["zindle"]], ["zindle"]).to_bytes()
    worker = Worker(model, Limits(), "0-")
    sent = []

    class Counting(ThreadLane):
        async def run(self, works):
            sent.extend(len(work.contents) for work in works if work.kind == "label")
            return await super().run(works)

    with serve(lane=Counting(worker), description=worker.describe()) as client:
        bank, key = create(client, data), encode(client, content)
        ask = {"id": key, "bank": bank}
        worker._banks._recent.clear()  # as after the end of a worker
        assert client.post("/v1/label", json=ask).status_code == 200
        assert client.post("/v1/label", json=ask).status_code == 200
        assert sent == [0, 1, 0]
        for _ in range(20):
            client.post("/v1/label", json={"id": key, "bank": create(client, data)})
        assert len(worker._banks) <= 8


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no GPU")  # signals differ on Windows
def test_two_workers_and_one_that_ends(process, model, desk, tmp_path):
    """A bank is not in the memory of a worker: it survives its end, and each worker gets it."""
    content, photo, masks = desk[0]
    learn(model, photo, [masks["blorp"]], ["blorp"]).save(tmp_path / "shop")
    server = process("--workers", "2", "--bank", str(tmp_path / "shop.safetensors"))
    client = server.client
    bank = create(client)
    keys = [encode(client, content) for _ in range(2)]
    assert teach(client, bank, keys[0], {"name": "zindle", "mask": run_lengths(masks["zindle"])}).status_code == 200
    answers = [client.post("/v1/segment", params={"bank": f"shop,{bank}"}, content=content) for _ in range(3)]
    assert {answer.json()["settings"]["bank"] for answer in answers} == {answers[0].json()["settings"]["bank"]}
    kill_workers(server.child.pid)
    answer = client.post("/v1/segment", params={"bank": bank}, content=content)
    assert answer.json()["names"] == ["zindle"]


def kill_workers(pid):
    import signal
    from pathlib import Path

    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    for child in children.read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    time.sleep(0.1)


@pytest.mark.slow
def test_a_bank_of_another_model_ends_the_server_at_once(process, tmp_path):
    bank_of(clusters(2)[0], ["cup"] * 12).save(tmp_path / "other")
    for arguments, text in (
        (("--bank", str(tmp_path / "other.safetensors")), "24 channels"),
        (("--bank", str(tmp_path / "nothing")), "no bank at"),
    ):
        with pytest.raises(AssertionError, match=text):
            process(*arguments)
