"""A user in one short paragraph of the reader's language, made from the row by templates; pure.

Names of categories and items are data and stand as they are, between the language's quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from stream_app.answers import Inspection, Locale

NAMED = 3
"""Interests and items that are named."""
DAY_S = 86_400


@dataclass(frozen=True)
class Language:
    """How one language says it; of two forms the first is of one, the second of several.

    quotes      before and after a name
    between     names of a list: between two, and before the last
    group       between thousands
    percent     behind a percentage
    share       a name with its percentage
    date        of year, month and day
    events      a number of events, as ``interests`` takes it
    days        the horizon, of one day and of several
    interests   from ``names``, ``events``, ``date`` and ``days``
    unchanged   no change of interest is known
    changed     once at ``date``; ``number`` times, the last at ``date``
    suggested   from ``names``
    unknown     nothing is known
    """

    quotes: tuple[str, str]
    between: tuple[str, str]
    group: str
    percent: str
    share: str
    date: Callable[[int, int, int], str]
    events: tuple[str, str]
    days: tuple[str, str]
    interests: tuple[str, str]
    unchanged: str
    changed: tuple[str, str]
    suggested: tuple[str, str]
    unknown: str
    space: str = " "


def summary(found: Inspection, locale: Locale, horizon_s: int) -> str:
    """The strongest interests, whether and when they changed last, and what is suggested."""
    language = LANGUAGES[locale]
    if not found.interests or found.last_event is None:
        return language.unknown
    named = [
        language.share.format(name=_quoted(one.category, language), percent=percent)
        for one in found.interests[:NAMED]
        for percent in [_percent(one.probability, language)]
    ]
    days = max(round(horizon_s / DAY_S), 1)
    sentences = [
        _form(language.interests, len(named)).format(
            names=_joined(named, [one.category for one in found.interests[:NAMED]], language),
            events=_form(language.events, found.events).format(
                number=_number(found.events, language)
            ),
            date=_date(found.last_event, language),
            days=_form(language.days, days).format(number=_number(days, language)),
        ),
        _change(found, language),
    ]
    items = [item.item_id for item in found.items[:NAMED]]
    if items:
        names = _joined([_quoted(item, language) for item in items], items, language)
        sentences.append(_form(language.suggested, len(items)).format(names=names))
    return language.space.join(sentences)


def preferred_locale(accept_language: str) -> Locale:
    """The language of ours that an Accept-Language header (RFC 9110) likes best; English if none.

    A range such as de-AT is taken for its language; what is no range is passed over.
    """
    best: Locale = "en"
    best_weight = 0.0
    for part in accept_language.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            continue
        locale = _LOCALES.get(match["language"].lower())
        weight = float(match["weight"] or 1)
        if locale is not None and weight > best_weight:
            best, best_weight = locale, weight
    return best


def known_locale(name: str) -> Locale | None:
    """The language of this name, None where we do not have it."""
    return _LOCALES.get(name)


def _change(found: Inspection, language: Language) -> str:
    if found.drifts == 0 or found.last_drift is None:
        return language.unchanged
    return _form(language.changed, found.drifts).format(
        number=_number(found.drifts, language), date=_date(found.last_drift, language)
    )


def _form(forms: tuple[str, str], count: int) -> str:
    return forms[0] if count == 1 else forms[1]


def _quoted(name: str, language: Language) -> str:
    before, after = language.quotes
    return f"{before}{name}{after}"


def _joined(pieces: Sequence[str], names: Sequence[str], language: Language) -> str:
    """A list as it is read out; ``names`` are the bare names of its pieces."""
    *most, last = pieces
    if not most:
        return last
    between, before_last = language.between
    if language is SPANISH and _LIKE_Y.match(names[-1]):
        before_last = " e "
    return between.join(most) + before_last + last


def _number(number: int, language: Language) -> str:
    if language is SPANISH and number < 10_000:  # four digits stand together
        return str(number)
    return f"{number:,}".replace(",", language.group)


def _percent(probability: float, language: Language) -> str:
    percent = round(100 * probability)
    shown = "<1" if percent < 1 else ">99" if percent > 99 else str(percent)
    return shown + language.percent


def _date(time: str, language: Language) -> str:
    moment = datetime.fromisoformat(time)
    return language.date(moment.year, moment.month, moment.day)


def _month(names: str, month: int) -> str:
    return names.split()[month - 1]


_RANGE = re.compile(
    r"(?P<language>[A-Za-z]{1,8})(?:-[A-Za-z0-9]{1,8})*"
    r"(?:\s*;\s*q\s*=\s*(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_LIKE_Y = re.compile("h?[ií](?![aeouáéóú])", re.IGNORECASE)
"""Begins with the sound of the word "y", which is "e" before it."""

_ENGLISH_MONTHS = (
    "January February March April May June July August September October November December"
)
_GERMAN_MONTHS = (
    "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
)
_SPANISH_MONTHS = (
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
)
_FRENCH_MONTHS = (
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"
)

ENGLISH = Language(
    quotes=("“", "”"),
    between=(", ", " and "),
    group=",",
    percent="%",
    share="{name} ({percent})",
    date=lambda year, month, day: f"{day} {_month(_ENGLISH_MONTHS, month)} {year}",
    events=("one event", "{number} events"),
    days=("24 hours", "{number} days"),
    interests=(
        "Judging by {events} up to {date}, the strongest interest for the next {days} is {names}.",
        "Judging by {events} up to {date}, the strongest interests for the next {days} are "
        "{names}.",
    ),
    unchanged="No change of interest has been noticed so far.",
    changed=(
        "The interests have changed once, on {date}.",
        "The interests have changed {number} times, most recently on {date}.",
    ),
    suggested=("Suggested next: {names}.", "Suggested next: {names}."),
    unknown="Nothing is known about this user’s interests yet.",
)
GERMAN = Language(
    quotes=("„", "“"),
    between=(", ", " und "),
    group=".",
    percent="\u00a0%",
    share="{name} ({percent})",
    date=lambda year, month, day: f"{day}. {_month(_GERMAN_MONTHS, month)} {year}",
    events=("einem Ereignis", "{number} Ereignissen"),
    days=("24 Stunden", "{number} Tage"),
    interests=(
        "Das stärkste Interesse der nächsten {days} ist {names}, geschätzt aus {events} bis zum "
        "{date}.",
        "Die stärksten Interessen der nächsten {days} sind {names}, geschätzt aus {events} bis zum "
        "{date}.",
    ),
    unchanged="Ein Wandel der Interessen wurde bisher nicht bemerkt.",
    changed=(
        "Die Interessen haben sich einmal gewandelt, und zwar am {date}.",
        "Die Interessen haben sich {number}-mal gewandelt, zuletzt am {date}.",
    ),
    suggested=("Vorgeschlagen wird {names}.", "Vorgeschlagen werden {names}."),
    unknown="Über die Interessen dieser Person ist noch nichts bekannt.",
)
SPANISH = Language(
    quotes=("«", "»"),
    between=(", ", " y "),
    group="\u00a0",
    percent="\u00a0%",
    share="{name} ({percent})",
    date=lambda year, month, day: f"{day} de {_month(_SPANISH_MONTHS, month)} de {year}",
    events=("un evento", "{number} eventos"),
    days=("las próximas 24 horas", "los próximos {number} días"),
    interests=(
        "El interés más fuerte para {days} es {names}, según {events} hasta el {date}.",
        "Los intereses más fuertes para {days} son {names}, según {events} hasta el {date}.",
    ),
    unchanged="Hasta ahora no se ha observado ningún cambio de interés.",
    changed=(
        "Los intereses han cambiado una vez, el {date}.",
        "Los intereses han cambiado {number} veces, la última el {date}.",
    ),
    suggested=("Se sugiere {names}.", "Se sugieren {names}."),
    unknown="Todavía no se sabe nada de los intereses de esta persona.",
)
FRENCH = Language(
    quotes=("«\u00a0", "\u00a0»"),
    between=(", ", " et "),
    group="\u202f",
    percent="\u202f%",
    share="{name} ({percent})",
    date=lambda year, month, day: (
        f"{'1er' if day == 1 else day} {_month(_FRENCH_MONTHS, month)} {year}"
    ),
    events=("un événement", "{number} événements"),
    days=("les prochaines 24 heures", "les {number} prochains jours"),
    interests=(
        "Le principal centre d’intérêt pour {days} est {names}, d’après {events} jusqu’au {date}.",
        "Les principaux centres d’intérêt pour {days} sont {names}, d’après {events} jusqu’au "
        "{date}.",
    ),
    unchanged="Aucun changement d’intérêt n’a été constaté jusqu’ici.",
    changed=(
        "Les centres d’intérêt ont changé une fois, le {date}.",
        "Les centres d’intérêt ont changé {number} fois, la dernière fois le {date}.",
    ),
    suggested=("Suggestion\u00a0: {names}.", "Suggestions\u00a0: {names}."),
    unknown="On ne sait encore rien des centres d’intérêt de cette personne.",
)
JAPANESE = Language(
    quotes=("「", "」"),
    between=("、", "、"),
    group=",",
    percent="%",
    share="{name}（{percent}）",
    date=lambda year, month, day: f"{year}年{month}月{day}日",
    events=("{number}件", "{number}件"),
    days=("24時間", "{number}日間"),
    interests=(
        "{date}までの{events}のイベントによると、今後{days}で最も関心が高いのは{names}です。",
        "{date}までの{events}のイベントによると、今後{days}で関心が高いのは{names}です。",
    ),
    unchanged="関心の変化はこれまで検出されていません。",
    changed=(
        "関心は{date}に1回変化しました。",
        "関心はこれまでに{number}回変化し、最近では{date}に変化しました。",
    ),
    suggested=("おすすめは{names}です。", "おすすめは{names}です。"),
    unknown="このユーザーの関心はまだ分かっていません。",
    space="",
)
CHINESE = Language(
    quotes=("“", "”"),
    between=("、", "和"),
    group=",",
    percent="%",
    share="{name}（{percent}）",
    date=lambda year, month, day: f"{year}年{month}月{day}日",
    events=("{number}个事件", "{number}个事件"),
    days=("24小时", "{number}天"),
    interests=(
        "根据截至{date}的{events}，未来{days}内最强的兴趣是{names}。",
        "根据截至{date}的{events}，未来{days}内最强的兴趣是{names}。",
    ),
    unchanged="目前尚未发现兴趣变化。",
    changed=(
        "兴趣发生过一次变化，时间是{date}。",
        "兴趣发生过{number}次变化，最近一次是在{date}。",
    ),
    suggested=("推荐：{names}。", "推荐：{names}。"),
    unknown="目前还不了解该用户的兴趣。",
    space="",
)
LANGUAGES: dict[Locale, Language] = {
    "de": GERMAN,
    "en": ENGLISH,
    "es": SPANISH,
    "fr": FRENCH,
    "ja": JAPANESE,
    "zh": CHINESE,
}
_LOCALES: dict[str, Locale] = {locale: locale for locale in LANGUAGES}
