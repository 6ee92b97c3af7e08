"""A report that can't be made or sent fails alone, with a sentence, and its requester is told."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from seedtrust_ops.config import get_settings
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import ReportClaim
from seedtrust_ops_tests.jobs.report_requests import address, ask, row, run, run_and_tell, told
from seedtrust_ops_tests.support.factories import BuiltCase, Company

pytestmark = pytest.mark.usefixtures("whole_environment")

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "horoscope"}, "There is no report called 'horoscope': choose one of case_ledger"),
    "no case": ({"kind": "case_ledger"}, "needs the number of a case"),
    "another case": (
        {"kind": "case_ledger", "params": {"case_id": 999_999}},
        "There is no case with the number 999999",
    ),
    "case in words": ({"kind": "case_ledger", "params": {"case_id": "first"}}, "needs the number of a case"),
    "huge case": ({"kind": "case_ledger", "params": {"case_id": 10**30}}, "needs the number of a case"),
    "a list": ({"kind": "case_ledger", "params": [1]}, "parameters of the report can't be read"),
    "no day": ({"kind": "disbursements", "params": {"from": "yesterday"}}, "'yesterday', which is no day"),
    "day in no month": ({"kind": "disbursements", "params": {"to": "2026-02-30"}}, "'2026-02-30', which is no day"),
    "reversed": (
        {"kind": "huntington_transfers", "params": {"from": "2026-02-02", "to": "2026-02-01"}},
        "would start on 2026-02-02 and end before that",
    ),
    "unknown status": ({"kind": "disbursements", "params": {"status": "lost"}}, "No status is called 'lost'"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_fails_alone_with_a_sentence_and_its_requester_is_told(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, bad: str
) -> None:
    columns, sentence = BAD[bad]
    number = ask(company, **columns)
    good = ask(company, "account_balances")
    result = run()
    assert result.success
    assert told(result)["made"] == [good]
    failed = row(company, number)
    assert failed.status == 4
    assert sentence in str(failed.error)
    (letter,) = mailbox.control.letters(address(company, number))
    assert " ".join(str(failed.error).split()) in " ".join(letter.text.split())
    with company.sessions() as session:
        assert session.scalars(select(ReportClaim)).all() == []


@pytest.mark.parametrize(
    ("user", "sentence"), [({"email": ""}, "no email address"), ({"is_active": False}, "not active")]
)
def test_a_requester_who_can_t_be_written_to_gets_no_letter_and_the_rest_go_on(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, user: dict[str, Any], sentence: str
) -> None:
    number, good = ask(company, "account_balances", **user), ask(company, "account_balances")
    assert run_and_tell()["made"] == [good]
    assert row(company, number).status == 4
    assert sentence in str(row(company, number).error)
    assert len(mailbox.control.letters()) == 1


def test_a_bucket_that_is_not_there_fails_the_request_with_a_sentence(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORTS_BUCKET", "no-such-bucket")
    get_settings.cache_clear()
    number = ask(company, "account_balances")
    assert run().success
    assert "There is no S3 bucket no-such-bucket" in str(row(company, number).error)
    assert len(mailbox.control.letters(address(company, number))) == 1


def test_storage_that_is_away_puts_the_request_back_and_fails_it_after_three_tries(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    number = ask(company, "account_balances")
    for tries in (1, 2, 3):
        result = run_and_tell()
        assert result["failed" if tries == 3 else "put back"] == [number]
        assert run_and_tell()["put back"] == []
        with company.sessions.begin() as session:
            session.execute(update(ReportClaim).values(not_before=datetime.now(UTC)))
    assert row(company, number).status == 4
    assert "It was tried 3 times." in str(row(company, number).error)


def test_a_missing_bucket_variable_stops_the_job_by_name_only_where_a_report_waits(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPORTS_BUCKET")
    get_settings.cache_clear()
    assert run().success
    number = ask(company, "account_balances")
    result = run()
    assert not result.success
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    assert "REPORTS_BUCKET is not set" in str(failure.step_failure_data.user_failure_data)
    assert row(company, number).status == 1
