"""What is looked at before a request is made."""

from __future__ import annotations

import io
from collections.abc import Callable

import httpx2
from served import error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Keeping, ServingOptions


def test_a_turn_that_was_let_go_is_told_from_other_mistakes(kontext: Kontext, picture: Callable):
    file = io.BytesIO()
    picture(144, 112).save(file, format="PNG")
    with served(kontext, ServingOptions(keeping=Keeping(session_bytes=1))) as address:

        def ask(**fields: object) -> httpx2.Response:
            files = {"image": file.getvalue()} if fields["session"] == "new" else None
            data = {"prompt": "x", "num_inference_steps": 1, **fields}
            form = {"data": {name: str(value) for name, value in data.items()}, "files": files}
            return httpx2.post(f"{address}/v1/images/edits", timeout=60, **(form if files else {"json": data}))

        name = ask(session="new").json()["session"]
        assert ask(session=name).json()["turn"] == 2
        for turn in (1, 9):
            gone = ask(session=name, turn=turn)
            error = error_of(gone)
            assert (gone.status_code, error["code"], error["param"]) == (404, "turn_not_found", "turn")
            assert f"there is no turn {turn} in this session, or it was let go" in error["message"]
            assert "Kept are 0, the picture, and 2" in error["message"]
        assert ask(session=name, turn=0).json()["turn"] == 3
