"""Features of ties told by hand, whose values can be worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.events.facts import NEVER, FactKind
from recsys.pipeline.tied import ties_at
from recsys.ties.features import TIE_FEATURES
from tests.small_world import DAY, HOUR, MINUTE, T0, Scene

EVENING = 20 * HOUR
FAN, PASSER = 0, 1


@pytest.fixture
def scene() -> Scene:
    """Host 0 is on air on ten days at 20:00; the fan comes on days 0, 2 and 4 at 20:10 for 30 minutes.

    Host 1 is on air on day 6 and the fan looks in once.
    """
    scene = Scene(n_hosts=3)
    for day in range(8):
        scene.room(day, 0, T0 + day * DAY + EVENING)
        if day in (0, 2, 4):
            scene.enter(FAN, day, T0 + day * DAY + EVENING + 10 * MINUTE, stay_min=30)
        scene.end(day, T0 + day * DAY + EVENING + 2 * HOUR)
        if day == 6:
            scene.room(100, 1, T0 + 6 * DAY + 12 * HOUR).enter(FAN, 100, T0 + 6 * DAY + 12 * HOUR + 5 * MINUTE)
    return scene


ASKED = T0 + 8 * DAY + 19 * HOUR


def tie(scene: Scene, host: int, at: int = ASKED, user: int = FAN, live_started: int = NEVER) -> dict[str, float]:
    hosts = np.array([host], dtype=np.int64)
    ties, values = ties_at(scene.world, user, hosts, np.array([live_started]), at)
    assert ties.asked.tolist() == [0]
    return dict(zip(TIE_FEATURES, values[:, 0].tolist(), strict=True))


def test_visits(scene: Scene) -> None:
    known = {
        "tie_entries": 3,
        "tie_share_of_user": 3 / 4,
        "tie_hours_since_entry": 4 * 24 - 1 - 10 / 60,
        "tie_hosts_since": 1,  # host 1 was entered later
        "tie_days_since_first": 8 - (1 + 10 / 60) / 24,
        "tie_active_days": 3,
        "tie_active_days_7": 2,  # days 2 and 4 of the days 2 … 8
        "tie_broadcasts_attended": 3,
        "tie_broadcasts_missed": 3,  # days 5, 6, 7
        "tie_visit_gap_hours": 48,
        "tie_stay_mean_min": 30,
        "tie_beyond_mean_min": 18,  # 30 minutes less two slots of 6
    }
    found = tie(scene, 0)
    assert {name: found[name] for name in known} == pytest.approx(known)
    assert found["tie_visit_due"] == pytest.approx(known["tie_hours_since_entry"] / 48)
    assert tie(scene, 1)["tie_hosts_since"] == 0


def test_the_room_in_question_is_neither_missed_nor_attended(scene: Scene) -> None:
    in_question = tie(scene, 0, live_started=T0 + 7 * DAY + EVENING)
    assert in_question["tie_broadcasts_missed"] == 2
    assert in_question["tie_attendance"] == pytest.approx((2 + 0.5) / (5 + 1.5))  # of days 2 … 6
    assert tie(scene, 0)["tie_attendance"] == pytest.approx((2 + 0.5) / (6 + 1.5))


def test_broadcasts_are_offered_since_the_users_first_visit_anywhere(scene: Scene) -> None:
    """Of eight broadcasts the one a viewer is asked about does not count; before he was there, none did."""
    assert tie(scene, 0)["tie_broadcasts_offered"] == pytest.approx(8, abs=0.01)
    assert tie(scene, 0, live_started=T0 + 7 * DAY + EVENING)["tie_broadcasts_offered"] == pytest.approx(7, abs=0.01)
    late = Scene(n_hosts=3)
    for day in range(8):
        late.room(day, 0, T0 + day * DAY + EVENING)
        if day == 5:
            late.enter(PASSER, day, T0 + day * DAY + EVENING + MINUTE)
        late.end(day, T0 + day * DAY + EVENING + 2 * HOUR)
    late.fact(T0 + HOUR, FactKind.FOLLOW, FAN, 0)
    assert tie(late, 0, user=PASSER)["tie_broadcasts_offered"] == pytest.approx(3, abs=0.01)  # days 5, 6 and 7
    assert tie(late, 0, user=FAN)["tie_broadcasts_offered"] == 8  # since when he is there, nobody knows


def test_who_came_to_every_broadcast_attends_them_all() -> None:
    """A tie remembers six broadcasts; a seventh and eighth are not held against it."""
    scene = Scene(n_hosts=1)
    for day in range(8):
        scene.room(day, 0, T0 + day * DAY + EVENING).enter(FAN, day, T0 + day * DAY + EVENING + MINUTE)
    assert tie(scene, 0)["tie_attendance"] == pytest.approx(6.5 / 7.5)
    assert tie(scene, 0, live_started=T0 + 7 * DAY + EVENING)["tie_attendance"] == pytest.approx(5.5 / 6.5)


def test_hour_match_is_high_at_the_usual_hour_only(scene: Scene) -> None:
    """Three entries in the slot 18–21; the neighbouring slots count half."""
    match = {hour: tie(scene, 0, at=T0 + 8 * DAY + hour * HOUR)["tie_hour_match"] for hour in (19, 22, 10)}
    assert match == pytest.approx({19: 3.5 / 10, 22: 2.0 / 10, 10: 0.5 / 10})


def test_shares_and_ranks_compare_with_the_users_other_ties(scene: Scene) -> None:
    """The fan's decayed entries at host 0 (2, 4 and 8 days … old) against one of host 1."""
    half = 3 * DAY
    ours = sum(2.0 ** (-(ASKED - (T0 + d * DAY + EVENING + 10 * MINUTE)) / half) for d in (0, 2, 4))
    other = 2.0 ** (-(ASKED - (T0 + 6 * DAY + 12 * HOUR + 5 * MINUTE)) / half)
    found = tie(scene, 0)
    assert found["tie_entries_3d"] == pytest.approx(ours)
    assert found["tie_share_3d"] == pytest.approx(ours / (ours + other))
    assert found["tie_to_strongest_3d"] == pytest.approx(ours / max(ours, other))
    assert found["tie_rank_3d"] == float(other > ours)


def test_an_announced_leave_pauses_the_clock_once(scene: Scene) -> None:
    before = tie(scene, 0)
    away = {"value": T0 + 5 * DAY, "aux": T0 + 7 * DAY, "count": 0}
    scene.fact(T0 + 5 * DAY - HOUR, FactKind.LEAVE_NOTICE, -1, 0, **away)
    paused = tie(scene, 0)
    assert paused["tie_hours_since_entry"] == pytest.approx(before["tie_hours_since_entry"] - 48)
    assert paused["tie_visit_due"] == pytest.approx(paused["tie_hours_since_entry"] / 48)
    scene.fact(T0 + 5 * DAY - MINUTE, FactKind.LEAVE_NOTICE, -1, 0, **away)  # announced again
    assert tie(scene, 0)["tie_hours_since_entry"] == pytest.approx(paused["tie_hours_since_entry"])
    overlapping = {"value": T0 + 6 * DAY, "aux": T0 + 7 * DAY + 12 * HOUR, "count": 0}
    scene.fact(T0 + 5 * DAY, FactKind.LEAVE_NOTICE, -1, 0, **overlapping)
    assert tie(scene, 0)["tie_hours_since_entry"] == pytest.approx(paused["tie_hours_since_entry"] - 12)


def test_a_host_on_leave_keeps_its_ties(scene: Scene) -> None:
    """Asked after an announced leave of a week, a tie is what it was before it; without the notice it has cooled."""
    for at, kind in ((5, FactKind.COMMENT), (6, FactKind.GIFT), (7, FactKind.ORDER_LINE)):
        scene.fact(T0 + 4 * DAY + EVENING + (10 + at) * MINUTE, kind, FAN, 0, 4, value=700)
    before = tie(scene, 0)
    cooled = tie(scene, 0, at=ASKED + 7 * DAY)
    scene.world.leaves[0] = [(ASKED, ASKED + 7 * DAY)]
    kept = tie(scene, 0, at=ASKED + 7 * DAY)
    calendar = {"tie_days_since_first", "tie_active_days_7"}  # the calendar, not the tie
    others = {"tie_share_3d"}  # the other host has cooled meanwhile
    for name in set(TIE_FEATURES) - calendar - others:
        assert kept[name] == pytest.approx(before[name], nan_ok=True), name
    assert kept["tie_share_3d"] > before["tie_share_3d"]
    assert cooled["tie_entries_3d"] < 0.3 * kept["tie_entries_3d"]
    assert cooled["tie_lines_30d"] < kept["tie_lines_30d"] and cooled["tie_comments_7d"] < 0.6 * kept["tie_comments_7d"]


def test_a_leave_before_the_last_visit_or_still_to_come_pauses_nothing(scene: Scene) -> None:
    before = tie(scene, 0)["tie_hours_since_entry"]
    for since, until in ((T0, T0 + 4 * DAY), (ASKED, ASKED + DAY)):
        scene.fact(T0 + HOUR, FactKind.LEAVE_NOTICE, -1, 0, value=since, aux=until, count=0)
    assert tie(scene, 0)["tie_hours_since_entry"] == pytest.approx(before)


def test_commerce(scene: Scene) -> None:
    scene.buy(FAN, 0, T0, 2000).buy(FAN, 0, T0 + 6 * DAY, 3000)
    scene.fact(T0 + 7 * DAY, FactKind.REFUND, FAN, 0, value=1000)
    found = tie(scene, 0, at=T0 + 12 * DAY)
    known = {
        "tie_order_lines": 2,
        "tie_days_since_order": 6,
        "tie_order_gap_days": 6,
        "tie_order_due": 1,
        "tie_refund_share": (1000 + 1) / (5000 + 20),
        "tie_disputes": 0,
        "tie_lines_30d": 2 ** (-12 / 30) + 2 ** (-6 / 30),
    }
    assert {name: found[name] for name in known} == pytest.approx(known)


def test_relation(scene: Scene) -> None:
    scene.follow(FAN, 0, T0)
    found = tie(scene, 0, at=T0 + 9 * DAY)
    assert (found["tie_followed"], found["tie_follow_age_days"], found["tie_unfollowed"]) == (1, 9, 0)
    scene.fact(T0 + 9 * DAY, FactKind.UNFOLLOW, FAN, 0)
    found = tie(scene, 0, at=T0 + 10 * DAY)
    assert (found["tie_followed"], found["tie_unfollowed"]) == (0, 1)
    assert np.isnan(found["tie_follow_age_days"])


def test_a_follow_never_used_goes_cold_with_every_broadcast(scene: Scene) -> None:
    """Followed on day 3 and never there: days 3 … 7 passed unused. The fan, who follows too, last came on day 4."""
    for user in (FAN, PASSER):
        scene.follow(user, 0, T0 + 3 * DAY)
    unused, used = (tie(scene, 0, user=user) for user in (PASSER, FAN))
    assert unused["tie_follow_missed"] == 5 and np.isnan(unused["tie_broadcasts_missed"])
    assert used["tie_follow_missed"] == 3
    assert tie(scene, 0, user=PASSER, live_started=T0 + 7 * DAY + EVENING)["tie_follow_missed"] == 4


def test_depth(scene: Scene) -> None:
    scene.fact(T0 + DAY, FactKind.COMMENT, FAN, 0, count=3).fact(T0 + DAY, FactKind.LIKE, FAN, 0, count=6)
    found = tie(scene, 0, at=T0 + 8 * DAY)
    assert found["tie_comments"] == 3
    assert found["tie_comments_7d"] == pytest.approx(1.5)
    assert found["tie_comment_share"] == pytest.approx(3.1 / 9.9)
    assert found["tie_days_since_comment"] == 7


def test_never_is_not_none(scene: Scene) -> None:
    """What was never seen is missing, not zero; and nobody has a tie with a stranger."""
    found = tie(scene, 0)
    assert all(np.isnan(found[name]) for name in ("tie_order_lines", "tie_comments", "tie_followed"))
    hosts, started = np.array([0, 2]), np.full(2, NEVER)
    assert ties_at(scene.world, PASSER, hosts, started, ASKED)[0].asked.tolist() == []
    assert ties_at(scene.world, -1, hosts, started, ASKED)[0].asked.tolist() == []
    assert ties_at(scene.world, FAN, hosts, started, ASKED)[0].asked.tolist() == [0]
