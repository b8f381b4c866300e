"""What is said of a user in each language, and which language it is said in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream_app.answers import DriftHistory, Inspection, KnownInterest, Locale
from stream_app.events import RecommendationReason, RecommendedItem
from stream_app.summaries import LANGUAGES, known_locale, preferred_locale, summary

DAY_S = 86_400
MONTH_S = 30 * DAY_S
CHANGE = "2026-01-26T08:00:00+00:00"


def known(**changes: Any) -> Inspection:
    """A user with three interests, two changes and two suggested items."""
    categories = (("camping", 0.69), ("jeans", 0.29), ("tea", 0.281), ("sofas", 0.2))
    why = RecommendationReason("sequence", "fits the order of the last steps")
    found = Inspection(
        user_id="ann",
        partition=0,
        erased=False,
        stored=True,
        without=0,
        events=1234,
        steps=1300,
        last_event="2026-03-01T10:15:00+00:00",
        interests=[KnownInterest(category, p, 0.5, p, p) for category, p in categories],
        items=[RecommendedItem(name, 1.0, why) for name in ("tent-3", "cup-1")],
        drift_history=DriftHistory(2, CHANGE, 1.0, 2.0),
        drift_statistic=1.0,
        drift_threshold=2.0,
        drifts=2,
        last_drift=CHANGE,
        recent=[],
        offsets={},
        model_version="demo-1",
        row_checkpoint=True,
    )
    return msgspec.structs.replace(found, **changes)


def single(**changes: Any) -> Inspection:
    """One event, one interest, one change and one item."""
    many = known()
    ones: dict[str, Any] = {
        "events": 1,
        "interests": many.interests[:1],
        "items": many.items[:1],
        "drifts": 1,
    }
    return known(**(ones | changes))


MANY: dict[Locale, str] = {
    "en": "Judging by 1,234 events up to 1 March 2026, the strongest interests for the next 30 "
    "days are “camping” (69%), “jeans” (29%) and “tea” (28%). The interests have changed 2 times, "
    "most recently on 26 January 2026. Suggested next: “tent-3” and “cup-1”.",
    "de": "Die stärksten Interessen der nächsten 30 Tage sind „camping“ (69\u00a0%), „jeans“ "
    "(29\u00a0%) und „tea“ (28\u00a0%), geschätzt aus 1.234 Ereignissen bis zum 1. März 2026. Die "
    "Interessen haben sich 2-mal gewandelt, zuletzt am 26. Januar 2026. Vorgeschlagen werden "
    "„tent-3“ und „cup-1“.",
    "es": "Los intereses más fuertes para los próximos 30 días son «camping» (69\u00a0%), «jeans» "
    "(29\u00a0%) y «tea» (28\u00a0%), según 1234 eventos hasta el 1 de marzo de 2026. Los "
    "intereses han cambiado 2 veces, la última el 26 de enero de 2026. Se sugieren «tent-3» y "
    "«cup-1».",
    "fr": "Les principaux centres d’intérêt pour les 30 prochains jours sont «\u00a0camping\u00a0» "
    "(69\u202f%), «\u00a0jeans\u00a0» (29\u202f%) et «\u00a0tea\u00a0» (28\u202f%), d’après "
    "1\u202f234 événements jusqu’au 1er mars 2026. Les centres d’intérêt ont changé 2 fois, la "
    "dernière fois le 26 janvier 2026. Suggestions\u00a0: «\u00a0tent-3\u00a0» et "
    "«\u00a0cup-1\u00a0».",
    "ja": "2026年3月1日までの1,234件のイベントによると、今後30日間で関心が高いのは"
    "「camping」\uff0869%\uff09、「jeans」\uff0829%\uff09、「tea」\uff0828%\uff09です。"
    "関心はこれまでに2回変化し、最近では2026年1月26日に変化しました。"
    "おすすめは「tent-3」、「cup-1」です。",
    "zh": "根据截至2026年3月1日的1,234个事件\uff0c未来30天内最强的兴趣是"
    "“camping”\uff0869%\uff09、“jeans”\uff0829%\uff09和“tea”\uff0828%\uff09。"
    "兴趣发生过2次变化\uff0c最近一次是在2026年1月26日。推荐\uff1a“tent-3”和“cup-1”。",
}
ONE: dict[Locale, str] = {
    "en": "Judging by one event up to 1 March 2026, the strongest interest for the next 24 hours "
    "is “camping” (69%). The interests have changed once, on 26 January 2026. Suggested next: "
    "“tent-3”.",
    "de": "Das stärkste Interesse der nächsten 24 Stunden ist „camping“ (69\u00a0%), geschätzt aus "
    "einem Ereignis bis zum 1. März 2026. Die Interessen haben sich einmal gewandelt, und zwar am "
    "26. Januar 2026. Vorgeschlagen wird „tent-3“.",
    "es": "El interés más fuerte para las próximas 24 horas es «camping» (69\u00a0%), según un "
    "evento hasta el 1 de marzo de 2026. Los intereses han cambiado una vez, el 26 de enero de "
    "2026. Se sugiere «tent-3».",
    "fr": "Le principal centre d’intérêt pour les prochaines 24 heures est «\u00a0camping\u00a0» "
    "(69\u202f%), d’après un événement jusqu’au 1er mars 2026. Les centres d’intérêt ont changé "
    "une fois, le 26 janvier 2026. Suggestion\u00a0: «\u00a0tent-3\u00a0».",
    "ja": "2026年3月1日までの1件のイベントによると、今後24時間で最も関心が高いのは"
    "「camping」\uff0869%\uff09です。関心は2026年1月26日に1回変化しました。"
    "おすすめは「tent-3」です。",
    "zh": "根据截至2026年3月1日的1个事件\uff0c未来24小时内最强的兴趣是"
    "“camping”\uff0869%\uff09。兴趣发生过一次变化\uff0c时间是2026年1月26日。推荐\uff1a“tent-3”。",
}
UNCHANGED: dict[Locale, str] = {
    "en": "No change of interest has been noticed so far.",
    "de": "Ein Wandel der Interessen wurde bisher nicht bemerkt.",
    "es": "Hasta ahora no se ha observado ningún cambio de interés.",
    "fr": "Aucun changement d’intérêt n’a été constaté jusqu’ici.",
    "ja": "関心の変化はこれまで検出されていません。",
    "zh": "目前尚未发现兴趣变化。",
}
UNKNOWN: dict[Locale, str] = {
    "en": "Nothing is known about this user’s interests yet.",
    "de": "Über die Interessen dieser Person ist noch nichts bekannt.",
    "es": "Todavía no se sabe nada de los intereses de esta persona.",
    "fr": "On ne sait encore rien des centres d’intérêt de cette personne.",
    "ja": "このユーザーの関心はまだ分かっていません。",
    "zh": "目前还不了解该用户的兴趣。",
}


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
def test_each_language_says_it_in_its_own_numbers_and_forms(locale: Locale) -> None:
    assert summary(known(), locale, MONTH_S) == MANY[locale]
    assert summary(single(), locale, DAY_S) == ONE[locale]


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
def test_what_is_not_there_is_said_or_left_out(locale: Locale) -> None:
    said = summary(known(drifts=0, last_drift=None, items=[]), locale, MONTH_S)
    assert said.endswith(UNCHANGED[locale])
    assert "cup-1" not in said
    assert summary(known(interests=[], items=[]), locale, MONTH_S) == UNKNOWN[locale]


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
def test_names_are_data_and_stand_as_they_are(locale: Locale) -> None:
    odd = ["{0}", "a “b” {names}", "100%"]
    interests = [KnownInterest(name, 0.5, 1.0, 0.4, 0.6) for name in odd]
    said = summary(known(interests=interests), locale, MONTH_S)
    assert all(name in said for name in odd)


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(0.0, "<1%"), (0.004, "<1%"), (0.006, "1%"), (0.994, "99%"), (0.996, ">99%"), (1.0, ">99%")],
)
def test_nothing_is_quite_sure(probability: float, shown: str) -> None:
    said = summary(
        known(interests=[KnownInterest("tea", probability, 0.1, probability, probability)]),
        "en",
        MONTH_S,
    )
    assert f"“tea” ({shown})" in said


@pytest.mark.parametrize(
    ("locale", "number"),
    [
        ("en", "1,234,567"),
        ("de", "1.234.567"),
        ("es", "1\u00a0234\u00a0567"),
        ("fr", "1\u202f234\u202f567"),
        ("ja", "1,234,567"),
        ("zh", "1,234,567"),
    ],
)
def test_large_numbers_are_grouped(locale: Locale, number: str) -> None:
    assert number in summary(known(events=1_234_567), locale, MONTH_S)


@pytest.mark.parametrize(
    ("name", "word"), [("informática", "e"), ("Higiene", "e"), ("hielo", "y"), ("yoga", "y")]
)
def test_spanish_joins_by_sound(name: str, word: str) -> None:
    interests = [KnownInterest(one, 0.5, 1.0, 0.4, 0.6) for one in ("té", name)]
    assert f" {word} «{name}»" in summary(known(interests=interests), "es", MONTH_S)


def test_french_counts_the_first_of_a_month_alone() -> None:
    said = summary(known(last_event="2026-08-11T00:00:00+00:00"), "fr", MONTH_S)
    assert "jusqu’au 11 août 2026" in said


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_has_a_name_of_its_own(month: int) -> None:
    for locale in LANGUAGES:
        said = [
            summary(known(last_event=f"2026-{m:02}-12T00:00:00+00:00"), locale, MONTH_S)
            for m in (month, month % 12 + 1)
        ]
        assert said[0] != said[1]


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("", "en"),
        ("*", "en"),
        ("it", "en"),
        ("de", "de"),
        ("de-AT, de;q=0.9, en;q=0.8", "de"),
        ("it, fr;q=0.7, es;q=0.8", "es"),
        ("zh-Hans-CN", "zh"),
        ("JA", "ja"),
        ("en;q=0, fr;q=0.1", "fr"),
        ("fr, de", "fr"),
        ("fr;q=x, de;q=0.2", "de"),
        ("de;q=1.5, ;;, é", "en"),
    ],
)
def test_the_language_that_a_browser_likes_best(header: str, locale: Locale) -> None:
    assert preferred_locale(header) == locale


def test_a_language_is_known_by_its_exact_name() -> None:
    assert [known_locale(name) for name in sorted(LANGUAGES)] == sorted(LANGUAGES)
    assert known_locale("DE") is known_locale("it") is known_locale("") is None
