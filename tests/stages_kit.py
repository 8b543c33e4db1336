"""A scripted language model, a scripted encoder and small datasets for the tests of the stages."""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.llm.protocol import ModelIdentity, TokenUsage
from recbole_hnlm.stages.context import StageContext
from recbole_hnlm.utils.files import replacing


class ScriptedBackend:
    """Answers every prompt by a fixed function of its text and remembers what it was asked."""

    def __init__(self, *, none_share=0.0, garbage=(), pause=0.0, name="scripted", batch_size=4, uncounted=0):
        self.identity = ModelIdentity("scripted", name, "1", "float32")
        self.batch_size = batch_size
        self.asked = []
        self.closed = False
        self._none_share, self._garbage, self._pause = none_share, garbage, pause
        self._uncounted = uncounted

    @property
    def usage(self):
        """Ten tokens read and three written for each prompt; the first ``uncounted`` prompts are not counted."""
        unknown = min(self._uncounted, len(self.asked))
        return TokenUsage(10 * (len(self.asked) - unknown), 3 * (len(self.asked) - unknown), unknown)

    def generate(self, prompts, decoding):
        time.sleep(self._pause)
        self.asked += prompts
        return [self._reply(prompt, decoding) for prompt in prompts]

    def _reply(self, prompt, decoding):
        if any(text in prompt.user for text in self._garbage):
            return "no JSON at all"
        digest = hashlib.sha256((prompt.system + prompt.user).encode()).hexdigest()
        main = next(iter(decoding.schema["properties"]))
        declined = main == "hard_negative_item" and int(digest[:4], 16) < self._none_share * 65536
        return json.dumps({main: "None" if declined else f"thing {digest[:8]}", "reasoning": "scripted"})

    def close(self):
        self.closed = True


class NoBackend:
    """A language model that must not be asked."""

    identity = ModelIdentity("scripted", "scripted", "1", "float32")
    batch_size = 4

    def generate(self, prompts, decoding):
        raise AssertionError(f"asked for {len(prompts)} replies")

    def close(self):
        raise AssertionError("not ours to close")


class ScriptedEncoder:
    """Encodes a text as a unit vector that is a fixed function of it."""

    name, revision, dim = "scripted-encoder", "1", 8

    def __init__(self, pause=0.0):
        self.texts = []
        self._pause = pause

    def encode(self, texts):
        time.sleep(self._pause)
        self.texts += texts
        return np.stack([vector_of(text) for text in texts])


def vector_of(text):
    """The scripted vector of a text, float32 ``[8]``."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=8).astype(np.float32)
    return vector / np.linalg.norm(vector)


def write_items(folder, titles, categories="Things"):
    """Write ``toy.item`` for a mapping of token to title."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{token}\t{title}\t{categories}\n" for token, title in titles.items())
    # Put in place whole: in tests of several processes each writes it, while others may read.
    with replacing(folder / "toy.item") as partial:
        partial.write_text("item_id:token\ttitle:token_seq\tcategories:token_seq\n" + rows, encoding="utf-8", newline="")


def make_context(tmp_path, pairs, *, titles=None, ratings=None, **settings):
    """A context of hand-written training pairs (user token, item token); every item has a title unless given."""
    users = list(dict.fromkeys(user for user, _ in pairs))
    items = list(dict.fromkeys(item for _, item in pairs))
    write_items(tmp_path / "toy", titles if titles is not None else {item: f"Title of {item}" for item in items})
    training = TrainingInteractions(
        np.array(["[PAD]", *users]),
        np.array(["[PAD]", *items]),
        np.array([users.index(user) + 1 for user, _ in pairs]),
        np.array([items.index(item) + 1 for _, item in pairs]),
    )
    values = {"artifact_dir": str(tmp_path / "artifacts"), "encoder_batch_size": 4, "profile_items": "all", **settings}
    return StageContext(validate_settings(values), "toy", tmp_path / "toy", training, ratings=ratings)


def block_pairs(n_users=6, n_items=8, per_user=4):
    """Pairs in which user n interacts with items n, n+1, ... (modulo the number of items)."""
    return [(f"u{user}", f"i{(user + step) % n_items}") for user in range(n_users) for step in range(per_user)]
