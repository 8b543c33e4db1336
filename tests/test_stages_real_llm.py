"""The whole chain with the embedded SmolLM2 and MiniLM on 20 items of RecBole's own ml-100k."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recbole
from stages_kit import make_context

from recbole_hnlm.cli.show import show_user
from recbole_hnlm.semantics.pipeline import build_semantics
from recbole_hnlm.stages.replies import reply_artifact

ML_100K = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"


@pytest.mark.real_llm
def test_smollm2_and_minilm_on_20_items(tmp_path):
    rows = [line.split("\t") for line in (ML_100K / "ml-100k.item").read_text(encoding="utf-8").splitlines()[1:21]]
    titles = {row[0]: row[1] for row in rows}
    items = list(titles)
    pairs = [(f"u{user}", items[(user * 5 + step) % 20]) for user in range(4) for step in range(5)]
    context = make_context(tmp_path, pairs, titles=titles, llm_batch_size=32)
    semantics, reports = build_semantics(context)
    assert [(report.name, report.total, report.missing) for report in reports] == [
        ("profile", 24, 0),
        ("negatives", 4, 0),
        ("encode", 20 + 4 - reports[1].declined, 0),
    ]
    profiles = reply_artifact(context, "profiles_items").read()
    assert all(1 <= len(row["summarization"].split()) <= context.settings.profile_max_words for row in profiles)
    assert semantics.item_vectors.shape == (21, 384)
    assert np.allclose(np.linalg.norm(semantics.item_vectors[1:], axis=1), 1, atol=1e-2)
    toy_story, aladdin_like = semantics.item_vectors[1], semantics.item_vectors[2]
    assert toy_story @ aladdin_like < 0.99
    assert (semantics.pair_rows >= 0).sum() == 4 - reports[1].declined
    assert "hard negatives" in show_user(context, "u1")
    again, reports = build_semantics(context)
    assert [report.generated for report in reports] == [0, 0, 0]
    assert (again.pair_rows == semantics.pair_rows).all()
