"""The reports of `tallymark.Tally`: their signatures and their documentation.

The queries are in the package `tallymark._reports`. Its modules are imported by the first verb that
makes a report: they take some milliseconds, and many programs make none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from .._core.user_ids import IdT
from .reads import AsyncReads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, timedelta

    from .._core.calendars import Every
    from .._core.events import EventSet
    from .._reports.days_active import DaysActive
    from .._reports.engagement import Funnel, Stickiness
    from .._reports.lifecycle import Lifecycle
    from .._reports.ordered_funnel import OrderedFunnel, Resolution
    from .._reports.ordered_funnel_query import Step
    from .._reports.retention import Mode, Retention
    from .._reports.retention_query import Segments, Selector
    from .._reports.streak_lengths import Streaks
    from .._reports.streaks import Streak
    from .._reports.trend import Trend

__all__ = ["AsyncReports"]


class AsyncReports(AsyncReads[IdT]):
    """The verbs that make reports.

    What `AsyncReads` says of all verbs holds for them too. A report leaves nothing in the database.
    """

    async def retention(
        self,
        cohort: Selector,
        activity: Selector,
        *,
        by: Every = "week",
        anchor: date | None = None,
        periods: int | None = None,
        cohorts: int | None = None,
        until: date | None = None,
        mode: Mode = "classic",
        first_time: bool = False,
        segments: Segments | None = None,
        brackets: Iterable[int] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Retention:
        """Return how many users of each period were active in later periods.

        Arguments:
            cohort: the users of a cohort: an event's name, or a function that takes a
                `Period` and returns an event set (`during` builds one), such as for users
                who signed up on the web or on iOS.
            activity: what makes a user active, given in the same way.
            by: the length of a period: ``"hour"``, ``"day"``, ``"week"`` (ISO, from Monday on),
                ``"month"`` or ``"year"``; or a timedelta of 1 to 3,660 whole days.
            anchor: with a timedelta, the first day of one of the periods: any Sunday, for
                weeks of ``timedelta(days=7)`` that begin on Sunday.
            periods: the number of periods after the cohort's own, 0 or more; 12 by default.
                The table has one more column, for the cohort's own period.
            cohorts: the number of rows, 1 or more; as many as ``periods`` by default. The
                last cohort is that of the last period that is over.
            until: the moment of the report; the present by default, and at most. Periods that
                are not over then are not counted: their cells are ``None``, and the state of
                a cell says why.
            mode: ``"classic"``: active in that very period. ``"unbounded"``: active in that
                period or any later one that is over. For definitions see
                https://amplitude.com/docs/faq/retention-analysis.
            first_time: count in each cohort only users who were in no earlier period, back
                to the year 1970, also in those that the table does not show. Bitmaps that
                were deleted or have expired count as empty. If ``cohort`` is a function, it is
                called for one period of each month since 1970, to learn which events it reads,
                and for all periods in which these have marks, and 13 more before and after.
            segments: for each segment, by name, an event set, or a function that takes the
                `Period` of a cohort and returns one. The result has a table for each segment
                beside that of all users. The bitmaps of cohorts, activity and flags are
                fetched once for all tables; those that a function reads, once for each cohort.
            brackets: the last offset of each bracket, in ascending order, instead of
                ``periods``: ``[1, 3, 7]`` for the columns 0, 1, 2-3 and 4-7. A user returned
                in a bracket who was active in any of its periods. A cell is finished when
                all periods of its bracket are over.
            labels: readable names of events, for titles and captions of the HTML.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        The bitmaps are fetched a few at a time and combined by the tally in a thread, with
        numpy if it is installed (extra ``numpy``), so other tasks and other clients of Redis
        are served meanwhile. It needs about 64 MiB, however many users there are; with more
        than 2,000 cohorts, or cohorts times segments that are functions, 16 KiB for each more;
        and more if cohorts have very many bitmaps. Concurrent marks may be in one cell and not
        in another.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import retention_query  # noqa: PLC0415 - see above

        return await self._answer(
            retention_query.retention(
                self._context,
                cohort,
                activity,
                by=by,
                anchor=anchor,
                periods=periods,
                cohorts=cohorts,
                until=until,
                mode=mode,
                first_time=first_time,
                segments=segments,
                brackets=brackets,
                labels=labels,
            ),
            timeout,
        )

    async def trend(
        self,
        what: Selector | Iterable[Selector] | Mapping[str, Selector],
        *,
        by: Every = "day",
        anchor: date | None = None,
        periods: int = 90,
        rolling: int | None = 28,
        until: date | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Trend:
        """Return the active users of consecutive periods: counts, rolling actives, stickiness.

        Arguments:
            what: whose users are counted: an event's name, or a function that takes a `Period`
                and returns an event set (`during` builds one). Several of them make several
                series at once: a mapping from the names of the series, or a sequence.
            by: the length of a period: ``"hour"``, ``"day"``, ``"week"`` (ISO, from Monday on),
                ``"month"`` or ``"year"``; or a timedelta of 1 to 3,660 whole days.
            anchor: with a timedelta, the first day of one of the periods: any Sunday, for
                weeks of ``timedelta(days=7)`` that begin on Sunday.
            periods: the number of periods, 1 or more. The last one is the last that is over.
            rolling: how many days rolling actives are counted over, 1 or more: the users who
                were active on any of the days that end with the last day of the period. By
                default 28, four whole weeks, so that each day of the week counts equally.
                ``None`` for no rolling actives; by hour, they have to be ``None``.
            until: the moment of the report; the present by default, and at most. Only periods
                that are over then are counted.
            labels: readable names of series, for titles and charts of the HTML.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Rolling actives are read from the sets of single days. A function is called once for
        each period, and for each day that rolling actives need. `last` also reads the bitmaps
        of weeks and months. The two differ after an `unmark_event` that is not ``exact``, which
        removes a user from the week and the month, but not from other days in them; and when
        the bitmaps of days have expired, which count as empty.

        Each bitmap is fetched once, also if several series use it. The bitmaps are fetched a
        few at a time and combined by the tally in a thread, with numpy if it is installed
        (extra ``numpy``), so other tasks and other clients of Redis are served meanwhile. It
        needs about 64 MiB, however many users and periods there are; with more than 2,000 days
        of ``rolling`` times series, 16 KiB for each. Concurrent
        marks may be in one number and not in another. For events without any users, further
        requests look for those that nobody was ever marked for: the `unknown_events`.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import trend_query  # noqa: PLC0415 - see above

        return await self._answer(
            trend_query.trend(
                self._context,
                what,
                by=by,
                anchor=anchor,
                periods=periods,
                rolling=rolling,
                until=until,
                labels=labels,
            ),
            timeout,
        )

    async def stickiness(
        self,
        event: str,
        day: date | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Stickiness:
        """Return the share of a month's users who are active on a day: DAU over rolling MAU.

        Arguments:
            event: the event's name.
            day: the day; by default yesterday, the last day that is over. The month is the 28
                days that end with it, so that it has each day of the week equally often.
            labels: readable names of events, for titles and captions of the HTML.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        One request, one moment. If a number is 0, further requests look for events that nobody
        was ever marked for: the `unknown_events` of the report.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import engagement  # noqa: PLC0415 - see above

        return await self._answer(engagement.stickiness(self._context, event, day, labels), timeout)

    @overload
    async def funnel(
        self,
        steps: Iterable[Step],
        *,
        since: date,
        until: date | None = None,
        window: timedelta = ...,
        resolution: Resolution = "day",
        segments: Segments | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> OrderedFunnel: ...

    @overload
    async def funnel(
        self,
        steps: Iterable[str | EventSet],
        *,
        by: Every = "week",
        anchor: date | None = None,
        moment: date | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Funnel: ...

    async def funnel(
        self,
        steps: Iterable[Step],
        *,
        since: date | None = None,
        until: date | None = None,
        window: timedelta | None = None,
        resolution: Resolution | None = None,
        segments: Segments | None = None,
        by: Every | None = None,
        anchor: date | None = None,
        moment: date | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Funnel | OrderedFunnel:
        """Return how many users took the first step, the first two, and so on.

        With ``since``, an ordered funnel: a user enters with the first step on any day from
        ``since`` to ``until``. A user has reached a later step who did all steps up to it in
        this order, each on the day of the step before it or later, all within ``window`` of the
        entry. If a user enters several times, the best entry counts. Bitmaps have no order
        within a day, so steps of the same day count as ordered, also the same event as two
        steps. Later steps are read up to the end of the window, also after ``until``.

        Without ``since``, a funnel of one period: a user has reached a step who did this step
        and all earlier ones within the same period, in any order. In a funnel by week, a user
        who buys first and visits later is counted; a user who visits on Sunday and buys on
        Monday is not.

        Arguments:
            steps: names of events, or event sets. With ``since``, also functions that take the
                `Period` of a day (or hour) and return an event set; users of an event set, such
                as the flag ``unique("premium")``, did the step on every day.
            since: the moment from which on users enter; every day counts that has a moment from
                ``since`` to ``until``.
            until: the moment until which users enter, after ``since``; the present by default,
                and at most.
            window: how long users have for all steps, the day of the entry included: a timedelta
                of whole days, of 1 or more; by default 7, the day of the entry and six more.
            resolution: ``"day"`` by default; with ``"hour"`` all of this is of hours, if hours
                were marked, and ``window`` is of whole hours. Hours are those of the wall clock:
                when it is set back, the hour that occurs twice is one.
            segments: for each segment, by name, an event set, or a function that takes the
                `Period` of the entry's day (or hour) and returns one: the users who were in it
                when they entered. The result has a funnel for each segment beside that of all.
            by: without ``since``, the length of the period; ``"week"`` by default, and as for
                `retention`.
            anchor: with a timedelta as ``by``, the first day of one of the periods.
            moment: without ``since``, a moment of the period; the present by default.
            labels: readable names of events, for titles and captions of the HTML.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        A funnel of one period is one request, one moment. For an ordered one, the bitmaps are
        fetched a few at a time and combined by the tally in a thread, with numpy if it is
        installed (extra ``numpy``), so other tasks and other clients of Redis are served
        meanwhile. It needs about 64 MiB, however many users there are. Concurrent marks may be
        in one step and not in another. If a number is 0, further requests look for events that
        nobody was ever marked for: the `unknown_events` of the report.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import ordered_funnel_query  # noqa: PLC0415 - see above

        return await self._answer(
            ordered_funnel_query.funnel(
                self._context,
                steps,
                by=by,
                anchor=anchor,
                moment=moment,
                since=since,
                until=until,
                window=window,
                resolution=resolution,
                segments=segments,
                labels=labels,
            ),
            timeout,
        )

    async def streak(
        self,
        event: str,
        user_id: IdT,
        *,
        until: date | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Streak:
        """Return on how many days in a row a user was marked: the current and the longest run.

        The current run ends on the day of ``until`` or on the day before. So the day of
        ``until``, which is not over, counts if the user is marked on it already, and does not
        break the run if not. Days are those of the tally's time zone.

        Arguments:
            event: the event's name.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            until: the moment of the report; the present by default, and at most. Later days do
                not count. At a midnight, as of a date, the new day has not begun: the current
                run is the one that ends on the day before.
            labels: readable names of events, for titles and captions of the HTML.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Looks up the user's bit of each day, from 1970 on, of the months that have a bitmap: a
        thousand days in a request, without a common snapshot. Days whose bitmaps were deleted or
        have expired count as days without the user.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
                Or there are more than ``max_bitmaps`` days to look up.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import streaks  # noqa: PLC0415 - see above

        return await self._answer(
            streaks.streak(self._context, event, user_id, until, labels), timeout
        )

    async def days_active(
        self,
        activity: Selector,
        *,
        days: int = 28,
        until: date | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> DaysActive:
        """Return users by on how many of the last days they were active: the power-user curve.

        The days are the last ones that are over at the moment of the report.

        Arguments:
            activity: what makes a user active: an event's name, or a function that takes the
                `Period` of a day and returns an event set (`during` builds one).
            days: how many days, 1 or more; 28 by default, four whole weeks, so that each day
                of the week counts equally.
            until: the moment of the report; the present by default, and at most.
            labels: readable names of events, by name, for titles and captions.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        The bitmaps are fetched a few at a time and combined by the tally in a thread, with
        numpy if it is installed (extra ``numpy``), so other tasks and other clients of Redis
        are served meanwhile. It needs about 64 MiB, however many users there are.
        Concurrent marks may be in one number and not in another.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import days_active  # noqa: PLC0415 - see above

        return await self._answer(
            days_active.days_active(self._context, activity, days=days, until=until, labels=labels),
            timeout,
        )

    async def lifecycle(
        self,
        activity: Selector,
        *,
        by: Every = "week",
        anchor: date | None = None,
        periods: int = 12,
        until: date | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Lifecycle:
        """Return how many users of each period are new, returning or resurrected, or dormant.

        New users were active in no earlier period, back to the year 1970; returning users
        also in the period before; resurrected users earlier, but not in the period before.
        Dormant users were active in the period before, and not in this one. Bitmaps that were
        deleted or have expired count as empty. If ``activity`` is a function, it is called for
        one period of each month since 1970, to learn which events it reads, and for all periods
        in which these have marks, and 13 more before and after.

        Arguments:
            activity: what makes a user active: an event's name, or a function that takes a
                `Period` and returns an event set (`during` builds one).
            by: the length of a period: ``"hour"``, ``"day"``, ``"week"`` (ISO, from Monday on),
                ``"month"`` or ``"year"``; or a timedelta of 1 to 3,660 whole days.
            anchor: with a timedelta, the first day of one of the periods: any Sunday, for
                weeks of ``timedelta(days=7)`` that begin on Sunday.
            periods: how many periods, 1 or more; the last one is the last that is over at
                the moment of the report.
            until: the moment of the report; the present by default, and at most.
            labels: readable names of events, by name, for titles and captions.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        The bitmaps are fetched a few at a time and combined by the tally in a thread, with
        numpy if it is installed (extra ``numpy``), so other tasks and other clients of Redis
        are served meanwhile. It needs about 64 MiB, however many users there are, unless
        periods have very many bitmaps. Concurrent marks may be in one number and not in another.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import lifecycle_query  # noqa: PLC0415 - see above

        return await self._answer(
            lifecycle_query.lifecycle(
                self._context,
                activity,
                by=by,
                anchor=anchor,
                periods=periods,
                until=until,
                labels=labels,
            ),
            timeout,
        )

    async def streaks(
        self,
        event: str,
        *,
        until: date | None = None,
        days: int = 60,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Streaks:
        """Return users by the length of their current run of days, as that of `streak`.

        A current run ends on the day of ``until`` or on the day before. So the day of
        ``until``, which is not over, counts for users who are marked on it already, and does
        not break the runs of others. Users without a current run are not counted.

        Arguments:
            event: the event's name.
            until: the moment of the report; the present by default, and at most. At a
                midnight, as of a date, the new day has not begun: a current run is one that
                ends on the day before.
            days: the length from which on runs are counted together, 1 or more.
            labels: readable names of events, by name, for titles and captions.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        The bitmaps are fetched a few at a time and combined by the tally in a thread, with
        numpy if it is installed (extra ``numpy``), so other tasks and other clients of Redis
        are served meanwhile. It needs about 64 MiB, however many users there are.
        Concurrent marks may be in one number and not in another.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reports import streak_lengths  # noqa: PLC0415 - see above

        return await self._answer(
            streak_lengths.streaks(self._context, event, days=days, until=until, labels=labels),
            timeout,
        )
