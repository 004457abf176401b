"""A client of ``deop serve`` in Python: encodes a photo once, and asks several questions about it.

Usage: python segment.py PHOTO NAMES [NAMES ...]. The address is DEOP_ADDRESS, http://localhost:8000 by default; with a
token, set DEOP_TOKEN. Needs httpx.
"""

import os
import sys
import time
from pathlib import Path

import httpx


class Client:
    """Asks a server, and waits when it is busy."""

    def __init__(self, address: str, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=90)

    def request(self, method: str, path: str, **options) -> httpx.Response:
        """The answer; on 429 and 503 the request is repeated after the time that the server names."""
        for _ in range(8):
            answer = self._http.request(method, path, **options)
            if answer.status_code not in (429, 503):
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.is_error:
            raise SystemExit(f"{answer.status_code}: {answer.json()['detail']}")
        return answer

    def encode(self, photo: Path) -> str:
        """The id of a photo, for any number of questions."""
        headers = {"Content-Type": "application/octet-stream"}
        return self.request("POST", "/v1/encode", content=photo.read_bytes(), headers=headers).json()["id"]

    def label(self, photo: str, names: str) -> dict:
        """What the photo shows of these names."""
        return self.request("POST", "/v1/label", json={"id": photo, "names": names}).json()

    def forget(self, photo: str) -> None:
        """Let the server free the memory."""
        self.request("DELETE", f"/v1/encode/{photo}")


def main() -> None:
    """Print the share of each name."""
    client = Client(os.environ.get("DEOP_ADDRESS", "http://localhost:8000"), os.environ.get("DEOP_TOKEN", ""))
    photo = client.encode(Path(sys.argv[1]))
    for names in sys.argv[2:]:
        for found in client.label(photo, names)["classes"]:
            print(f"{found['share']:6.1%}  {found['name']}")
    client.forget(photo)


if __name__ == "__main__":
    main()
