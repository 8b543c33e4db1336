"""What a page shows of the data itself: text coverage, and a few users with what was recommended to them and said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recbole_hnlm.config import Config
from recbole_hnlm.cost.coverage import field_counts
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.experiments.report.view import Listing, Person, Reply
from recbole_hnlm.quick_start.caller_state import caller_state_kept
from recbole_hnlm.quick_start.loaded import loaded_model
from recbole_hnlm.quick_start.recommending import Recommender
from recbole_hnlm.semantics.attach import stage_context_of
from recbole_hnlm.semantics.user_story import UserStory, shown_title, user_story
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.utils.errors import DataError, HNLMError
from recbole_hnlm.utils.values import load_yaml, split_argv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.stages.context import StageContext

__all__ = ["Lists", "SampleOptions", "Samples", "gather_samples"]

_LISTED = 10
_HISTORY = 12
_RELATIONS = {"": "", "positive": "the positive itself", "history": "in the history"}


@dataclass(frozen=True)
class SampleOptions:
    """Which users are shown.

    Attributes:
        users: how many; 0 loads no data at all.
        keys: that replace the run's; places such as ``data_path`` must be given again.
    """

    users: int = 4
    keys: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_command(cls, users: int, argv: Sequence[str], config_files: Sequence[str] = ()) -> SampleOptions:
        """Take the keys of a command line: those of files, then its tokens; keys of single models are left out.

        Raises:
            ConfigError: a file or a token that cannot be read.
        """
        keys: dict[str, Any] = {}
        for file in config_files:
            keys |= load_yaml(file)
        keys |= {key: value for key, value in split_argv(argv).items() if "." not in key}
        return cls(users, {key: value for key, value in keys.items() if key not in {"model", "dataset", "resume", "run_id"}})

    def shown_keys(self) -> dict[str, Any]:
        """Return the keys, and that no progress is shown."""
        return {**self.keys, "show_progress": False}


@dataclass(frozen=True)
class Samples:
    """What was gathered.

    Attributes:
        people: sample users.
        coverage: field of the items' text -> items that have it; None where there is no such column.
        items: items in all.
        missing: what is not there, and why, a line each.
    """

    people: list[Person] = field(default_factory=list)
    coverage: dict[str, int | None] = field(default_factory=dict)
    items: int = 0
    missing: list[str] = field(default_factory=list)


Lists = dict[str, tuple[list[str], NDArray[np.int32]]]
"""Method -> raw ids of its users ``[U]`` and internal ids of what it recommends to them ``[U, K]``."""


def gather_samples(record: Mapping[str, Any], options: SampleOptions, lists: Lists | None = None) -> Samples:
    """Load the data of a run again, and choose users at evenly spaced places of the order by training interactions.

    Args:
        record: of the run.
        options: which users.
        lists: what other methods recommend on the same split; None asks the run's own checkpoint.

    Returns:
        What is there; whatever cannot be had is named in ``missing``, so that a page can be made from results alone.
    """
    if options.users == 0:
        return Samples(missing=["No user was asked for (--users=0)."])
    with caller_state_kept():
        try:
            return _Gathering(record, options, lists).samples()
        except HNLMError as error:
            return Samples(missing=[f"The data of this run could not be loaded: {error}"])


class _Gathering:
    """The data of a run, and the model where its checkpoint is there."""

    def __init__(self, record: Mapping[str, Any], options: SampleOptions, lists: Lists | None) -> None:
        self.options, self.missing = options, list[str]()
        saved = {"given": dict(record["config"]), "defaults": {}}
        self.config = Config(record["model"], record["dataset"], None, options.shown_keys(), saved=saved, strict=False)
        self.data = load_data(self.config)
        self.context: StageContext = stage_context_of(self.config, self.data.train._dataset)
        found, expected = self.context.training.split_fingerprint, record.get("split_fingerprint")
        if expected not in {None, found}:
            raise DataError(
                "it is not split as it was then (other files, filters or versions); give --data_path and the run's keys"
            )
        self.lists = lists if lists is not None else self._recommended(record)

    def samples(self) -> Samples:
        try:
            coverage = field_counts(self.context)
        except HNLMError as error:
            coverage = {}
            self.missing.append(f"The items' text could not be read: {error}")
        users = self._chosen()
        people = [self._person(user) for user in users]
        return Samples(people, coverage, self.context.training.n_items - 1, list(dict.fromkeys(self.missing)))

    def _recommended(self, record: Mapping[str, Any]) -> Lists:
        """Ask the run's own model, of the users that are shown."""
        checkpoint = record.get("checkpoint")
        if not checkpoint or not Path(checkpoint).is_file():
            self.missing.append("What the model recommends is not shown: the run's checkpoint is not there.")
            return {}
        try:
            loaded = loaded_model(checkpoint, self.options.shown_keys())
            recommender, tokens = Recommender(loaded), [str(self.context.training.user_tokens[user]) for user in self._chosen()]
            ids = {str(token): place for place, token in enumerate(self.context.training.item_tokens)}
            rows = np.zeros((len(tokens), _LISTED), dtype=np.int32)
            places = {token: place for place, token in enumerate(tokens)}
            for batch in recommender.batches(recommender.ids_of(tokens), min(_LISTED, len(ids) - 1)):
                for user, rank, item in zip(batch["user_id"], batch["rank"], batch["item_id"], strict=True):
                    rows[places[user], rank - 1] = ids[item]
        except HNLMError as error:
            self.missing.append(f"What the model recommends is not shown: {error}")
            return {}
        return {str(record["model"]): (tokens, rows)}

    def _chosen(self) -> list[int]:
        """Internal ids of the users that are shown, spread over their activity.

        They are those that both splits hold something of and, where the run reads hard negatives, that the LLM was asked about.
        """
        training = self.context.training
        counts = np.bincount(training.users, minlength=training.n_users)
        held = [set(_pairs(loader)[0].tolist()) for loader in (self.data.valid, self.data.test) if loader]
        held += self._asked_about()
        pool = [user for user in np.flatnonzero(counts) if all(int(user) in users for users in held)]
        pool = sorted(pool or np.flatnonzero(counts), key=lambda user: (counts[user], str(training.user_tokens[user])))
        count = min(self.options.users, len(pool))
        return [int(pool[int((place + 0.5) * len(pool) / count)]) for place in range(count)]

    def _asked_about(self) -> list[set[int]]:
        """The users with a semantic negative, as one set; none where the run reads none or the texts cannot be read."""
        if "pairs" not in kinds_needed(self.context.settings):
            return []
        try:
            return [set(self.context.training.users[self.context.chosen_rows].tolist())]
        except HNLMError:
            return []  # user_story says what is missing

    def _person(self, user: int) -> Person:
        training = self.context.training
        token = str(training.user_tokens[user])
        held = {
            name: _items_of(loader, user)
            for name, loader in (("validation", self.data.valid), ("test", self.data.test))
            if loader
        }
        history = [int(item) for item in training.history_of(user)]
        lists = [self._listing("Training history", [(item, "") for item in history], _HISTORY)]
        lists.append(
            self._listing(
                "What the user also chose", [(item, name) for name, items in held.items() for item in items], _HISTORY
            )
        )
        lists += [self._recommendation(method, token, held) for method in self.lists]
        summary = f"{len(history):,} training interactions, {sum(map(len, held.values())):,} held out"
        person = Person(token, summary, lists)
        try:
            return _with_story(person, user_story(self.context, token))
        except HNLMError as error:
            self.missing.append(f"What the LLM was told and said is not shown: {error}")
            return person

    def _recommendation(self, method: str, token: str, held: Mapping[str, list[int]]) -> Listing:
        users, rows = self.lists[method]
        places = np.flatnonzero(np.asarray(users) == token)
        items = [int(item) for item in rows[places[0]] if item > 0][:_LISTED] if len(places) else []
        marks = {item: f"hit: {name}" for name, some in held.items() for item in some}
        return self._listing(f"{method} recommends", [(item, marks.get(item, "")) for item in items], _LISTED, is_ranked=True)

    def _listing(self, title: str, items: Sequence[tuple[int, str]], limit: int, *, is_ranked: bool = False) -> Listing:
        tokens = self.context.training.item_tokens
        shown = [(self._title(str(tokens[item])), mark) for item, mark in items[:limit]]
        return Listing(title, shown, max(0, len(items) - limit), is_ranked)

    def _title(self, token: str) -> str:
        try:
            return shown_title(self.context, token)
        except DataError:
            return f"[{token}]"


def _with_story(person: Person, story: UserStory) -> Person:
    told = [("system", story.prompt.system), ("user", story.prompt.user)] if story.prompt else []
    if story.finetuned_text is not None:
        told.append(("text that the fine-tuned LLM reads", story.finetuned_text))
    said = [(name, str(story.profile[name])) for name in ("summarization", "reasoning")] if story.profile else []
    notes = []
    if story.is_stale:
        notes.append("Data or settings changed after the profile was made, so its prompt differed.")
    if not story.negatives:
        notes.append("The LLM was asked for no hard negative of this user.")
    replies = [
        Reply(
            about=negative.about,
            names=_names(negative.names),
            reasoning=negative.reasoning + (" (names no item that is new to the user: no vector)" if negative.declined else ""),
            nearest=[(near.title, near.cosine, _RELATIONS[near.relation]) for near in negative.nearest],
        )
        for negative in story.negatives
    ]
    return Person(person.name, person.summary, person.lists, told, said, replies, notes)


def _names(reply: Any) -> list[str]:
    return [] if reply is None else [str(each) for each in reply] if isinstance(reply, list) else [str(reply)]


def _pairs(loader: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    dataset = loader._dataset
    inter = dataset.inter_feat
    return np.asarray(inter[dataset.uid_field]), np.asarray(inter[dataset.iid_field])


def _items_of(loader: Any, user: int) -> list[int]:
    users, items = _pairs(loader)
    return [int(item) for item in items[users == user]]
