"""Who may ask, and what the log says: never a name, a photo, an id of a photo or a token."""

import base64
import re

import pytest

from deop.errors import SettingError
from deop.serving.access import is_loopback
from deop.serving.server import bind, check_host, read_tokens
from tests.serving.conftest import problem

TOKEN = "a-token-of-the-tests-0123456789"


def test_without_a_token_only_this_machine_is_answered(serve):
    """A page of another site can make its own name point to 127.0.0.1; the header Host then has that name."""
    with serve() as client:
        for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
            assert client.get("/v1/models", headers={"Host": host}).status_code == 200
        for host in ("example.com", "localhost.example.com", "127.0.0.1.example.com", "0.0.0.0", "10.0.0.1", ""):
            problem(client.get("/v1/models", headers={"Host": host}), 403)
            problem(client.get("/", headers={"Host": host}), 403)
            assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_token(serve):
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    with serve(tokens=[TOKEN]) as client:
        for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
            headers = {"Host": "example.com", "Authorization": header}
            for path in ("/", "/v1/models", "/metrics", "/openapi.json"):
                assert client.get(path, headers=headers).status_code == 200
        for header in (
            "",
            TOKEN,
            "Bearer",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Basic %%%",
            "Basic YTpi",
            "Bearer \xff",
        ):
            for path in ("/", "/v1/models", "/metrics", "/openapi.json", "/nothing"):
                answer = client.get(path, headers={"Authorization": header.encode("latin-1")})
                problem(answer, 401)
                assert "Basic" in answer.headers["www-authenticate"], "a browser asks for the password"
        for path in ("/healthz", "/readyz"):
            assert client.get(path).status_code == 200
        assert TOKEN not in client.log_text()


def test_pages_of_other_sites_are_not_answered(serve, cat):
    with serve() as client:
        for headers in ({"Origin": "https://example.com"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            problem(client.post("/v1/encode", content=cat, headers=headers), 403)
            problem(client.get("/v1/models", headers=headers), 403)
        own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
        answer = client.post("/v1/encode", content=cat, headers=own)
        assert answer.status_code == 201
        preflight = client.options(
            "/v1/encode", headers={"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
        )
        problem(preflight, 405)
        assert preflight.headers["allow"] == "POST"
        problem(client.get("/v1/label"), 405)
        for seen in (answer, preflight):
            assert not [name for name in seen.headers if name.startswith("access-control")]


def test_the_log_has_no_content(serve, cat, monkeypatch):
    secret = "zanzibar"
    with serve() as client:
        given = client.post("/v1/segment", params={"names": secret}, content=cat, headers={"X-Request-ID": "proxy-7"})
        assert given.headers["x-request-id"] == "proxy-7"
        forged = client.get("/healthz", headers={"X-Request-ID": 'x" \u00ff'.encode("latin-1")})
        assert re.fullmatch("[0-9a-f]{16}", forged.headers["x-request-id"])
        client.post("/v1/segment", params={"names": f"{secret},{secret}"}, content=cat)
        client.post("/v1/segment", json={secret: secret})
        client.post("/v1/segment", files={secret: (f"{secret}.png", cat)})
        client.get(f"/{secret}")
        client.get(f"/v1/{secret}?{secret}={secret}")
        key = client.post("/v1/encode", content=cat).json()["id"]
        client.delete(f"/v1/encode/{key}")

        from deop.serving import work

        def fail(*args):
            raise RuntimeError(secret)

        monkeypatch.setattr(work, "render", fail)
        problem(client.post("/v1/segment", params={"names": secret}, content=cat), 500)
        text = client.log_text()
        assert secret not in text
        assert key not in text
        assert secret not in client.get("/metrics").text
        assert key not in client.get("/metrics").text
        first = next(line for line in client.log() if line.get("request_id") == "proxy-7")
        assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/segment", 200)
        assert first["seconds"] > 0
        crash = next(line for line in client.log() if line["event"] == "error")
        assert crash["type"] == "RuntimeError"
        assert any("work.py" in place for place in crash["places"])
    assert [line["event"] for line in client.log()][-1] == "stopped"


def test_headers_that_protect_the_page(serve):
    with serve() as client:
        answer = client.get("/")
        assert "deop" in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert client.get("/samples/coffee.jpg").headers["content-type"] == "image/jpeg"
        for path in ("/../pyproject.toml", "/%2e%2e/__init__.py", "/docs", "/redoc", "/samples"):
            problem(client.get(path, follow_redirects=False), 404)


def test_metrics(serve, cat):
    with serve() as client:
        client.post("/v1/encode", content=cat)
        client.get("/nothing")
        text = client.get("/metrics").text
    for line in (
        'deop_requests_total{method="POST",path="/v1/encode",status="201"} 1.0',
        'deop_requests_total{method="GET",path="other",status="404"} 1.0',
        'deop_request_seconds_count{path="/v1/encode"} 1.0',
        "deop_batch_size_count 1.0",
        "deop_queue_length 0.0",
        "deop_requests_in_progress 0.0",
        'deop_cached_photos{worker="0"} 1.0',
    ):
        assert line in text.splitlines()


def test_the_token_of_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DEOP_TOKEN", raising=False)
    assert read_tokens(None) == ()
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert read_tokens(file) == (TOKEN,)
    monkeypatch.setenv("DEOP_TOKEN", TOKEN[::-1])
    assert read_tokens(None) == (TOKEN[::-1],)
    assert read_tokens(file) == (TOKEN,), "the file comes first"
    for text in ("", "short", "a token with spaces in it", "ü" * 20):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SettingError, match="token"):
            read_tokens(file)
    with pytest.raises(SettingError, match="No such file"):
        read_tokens(tmp_path / "missing")
    monkeypatch.setenv("DEOP_TOKEN", "")
    with pytest.raises(SettingError, match="DEOP_TOKEN"):
        read_tokens(None)


def test_other_machines_need_a_token():
    for host in ("127.0.0.1", "::1", "localhost"):
        check_host(host, ())
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.com", ""):
        assert not is_loopback(host)
        check_host(host, [TOKEN])
        with pytest.raises(SettingError, match="token"):
            check_host(host, ())


def test_an_address_in_use():
    with bind("127.0.0.1", 0) as bound, pytest.raises(SettingError, match="in use"):
        bind("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(SettingError, match="cannot listen"):
        bind("nowhere.invalid", 0)
