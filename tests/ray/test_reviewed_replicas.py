"""Two replicas with filters, a person and signatures: what is asked of one is shown and decided by either."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from certificates import write_files
from replicas import Cluster, until
from served import error_of

from kontext_trt import CredentialState, read_credentials

pytestmark = pytest.mark.check

CLIENT, REVIEWER = {"authorization": "Bearer client"}, {"authorization": "Bearer reviewer"}
QUICK = {"prompt": "x", "num_inference_steps": 1, "size": "32x32", "seed": 1}
EDITS, GENERATIONS = "/v1/images/edits", "/v1/images/generations"


@pytest.fixture(scope="module")
def cluster(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("reviewed")
    files = write_files(folder)
    for name in ("client", "reviewer"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o600)
    (folder / "words.txt").write_text("weapon\n")
    started = Cluster(
        bundle_path,
        folder,
        *("--api-key-file", str(folder / "client"), "--review", "--review-key-file", str(folder / "reviewer")),
        *("--filter", f"words:{folder / 'words.txt'}", "--c2pa-cert", str(files.chain), "--c2pa-key", str(files.key)),
    )
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def ask(cluster: Cluster, route: str = GENERATIONS, **more: Any) -> httpx2.Response:
    return httpx2.post(f"{cluster.url}{route}", json={**QUICK, **more}, headers=CLIENT, timeout=300)


def listed(cluster: Cluster, count: int) -> list[dict[str, Any]]:
    """What waits, once there is as much as is expected."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        answer = httpx2.get(f"{cluster.url}/review/pictures", headers=REVIEWER, timeout=60)
        found[:] = answer.json()["data"]
        return len(found) == count

    until(there)
    return found


def decide(cluster: Cluster, case: dict[str, Any], word: str) -> httpx2.Response:
    return httpx2.post(f"{cluster.url}/review/pictures/{case['id']}/{word}", headers=REVIEWER, timeout=60)


def decided(cluster: Cluster, answers: list[Future[httpx2.Response]], word: str) -> list[httpx2.Response]:
    for case in listed(cluster, len(answers)):
        assert decide(cluster, case, word).status_code == 200
    return [answer.result() for answer in answers]


def by_replica(cluster: Cluster, name: str) -> dict[str, float]:
    return cluster.metric(name, CLIENT)


def test_every_replica_shows_what_waits_and_decides(cluster: Cluster, pool: ThreadPoolExecutor):
    for turn in range(4):
        asked = [pool.submit(ask, cluster, seed=seed) for seed in range(3)]
        cases = listed(cluster, 3)
        names = {case["id"] for case in cases}
        for _ in range(8):
            shown = httpx2.get(f"{cluster.url}/review/pictures", headers=REVIEWER, timeout=60).json()["data"]
            assert {case["id"] for case in shown} == names, "whichever replica is asked"
        picture = httpx2.get(f"{cluster.url}/review/pictures/{cases[0]['id']}", headers=REVIEWER, timeout=60)
        assert picture.content.startswith(b"\x89PNG")
        word, status = (("approve", 200), ("refuse", 400))[turn % 2]
        for answer in decided(cluster, asked, word):
            assert answer.status_code == status
            if status == 400:
                assert error_of(answer)["code"] == "content_policy_violation"
                continue
            data = base64.b64decode(answer.json()["data"][0]["b64_json"])
            assert read_credentials(data).state is CredentialState.UNKNOWN_SIGNER
        assert decide(cluster, cases[0], "approve").status_code == 404
    counted = by_replica(cluster, "kontext_requests_total")
    for route in ("approve", "refuse"):
        assert any(route in labels for labels in counted), counted
    waited = by_replica(cluster, "kontext_reviews_total")
    assert sum(count for labels, count in waited.items() if 'decision="approved"' in labels) == 6
    assert sum(count for labels, count in waited.items() if 'decision="refused"' in labels) == 6


def test_of_two_turns_the_session_goes_on_with_one(cluster: Cluster, pool: ThreadPoolExecutor, picture: Callable):
    file = io.BytesIO()
    picture(32, 32).save(file, format="PNG")
    image = base64.b64encode(file.getvalue()).decode()
    (begun,) = decided(cluster, [pool.submit(ask, cluster, EDITS, image=image, session="new")], "approve")
    name = begun.json()["session"]
    asked = [pool.submit(ask, cluster, EDITS, session=name, prompt=prompt) for prompt in "ab"]
    answers = sorted(decided(cluster, asked, "approve"), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 409]
    assert (answers[0].json()["turn"], error_of(answers[1])["code"]) == (2, "session_changed")
    assert answers[1].headers["x-should-retry"] == "false"


def test_each_replica_asks_its_filters(cluster: Cluster):
    for _ in range(8):
        answer = ask(cluster, prompt="a WEAPON")
        assert (answer.status_code, error_of(answer)["code"]) == (400, "content_policy_violation")
    counted = by_replica(cluster, "kontext_filtered_total")
    assert sum(count for labels, count in counted.items() if 'answer="refused"' in labels) == 8


def test_who_goes_away_takes_the_picture_along(cluster: Cluster):
    with httpx2.Client(timeout=60) as leaving, pytest.raises(httpx2.ReadTimeout):
        leaving.post(f"{cluster.url}{GENERATIONS}", json=QUICK, headers=CLIENT, timeout=3)
    listed(cluster, 0)


def test_no_key_is_anywhere_but_in_its_file(cluster: Cluster):
    for headers in (None, CLIENT):
        assert httpx2.get(f"{cluster.url}/review/pictures", headers=headers, timeout=60).status_code == 401
    assert httpx2.get(f"{cluster.url}/v1/models", headers=REVIEWER, timeout=60).status_code == 401
    lines = [line for line in cluster.log().splitlines() if '"route": "/review/pictures' in line]
    assert lines, "the log tells of decisions"
    assert "Bearer" not in cluster.log()
