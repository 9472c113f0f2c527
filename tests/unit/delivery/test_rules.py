"""Every rule that the service enforces, and the tests that fail without it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "delivery-protocol.md").read_text()
TESTS = {
    "D-ACC-5": "an_epoch_is_read_with_its_own_token_only",
    "D-ACC-6": "the_append_key_of_an_ancestor_is_refused",
    "D-ACC-7": "a_bundle_cannot_open_a_name_that_exists",
    "D-ENT-1": "an_append_under_another_key_is_refused",
    "D-ENT-3": "a_repeated_append_gets_the_first_receipt_and_changes_nothing",
    "D-ENT-4": "neither_repetitions_nor_lost_races_are_charged",
    "D-ENT-5": "a_message_to_an_ended_epoch_is_refused_with_where_to_read_on",
    "D-ENT-6": "sealed_content_is_absent_exactly_in_corrections",
    "D-REC-2": "receipts_are_numbered_from_one_and_chain_to_the_opening_receipt",
    "D-REC-3": "a_bundle_opens_the_epoch_it_claims_with_a_receipt_that_names_it",
    "D-REC-4": "a_crash_at_any_write_or_sync_loses_nothing_that_was_answered",
    "D-REC-6": "a_read_goes_on_where_the_page_ended",
    "D-REC-7": "a_large_entry_is_fetched_in_parts",
    "D-REC-8": "an_ended_epoch_is_gone_and_says_so",
    "D-BUN-1": "a_refused_bundle_leaves_nothing_behind",
    "D-BUN-3": "a_further_candidate_names_the_newest_one",
    "D-BUN-4": "who_loses_the_race_gets_the_winner_and_where_to_read_on",
    "D-BUN-5": "a_chunk_that_the_header_does_not_list_is_refused",
    "D-BUN-6": "a_bundle_cannot_open_a_name_that_exists",
    "D-BUN-7": "a_bundle_opens_the_epoch_it_claims_with_a_receipt_that_names_it",
    "D-BUN-8": "a_flood_of_bundles_is_charged_to_its_sender_alone",
    "D-CHK-5": "a_bundle_may_list_chunks_that_are_stored",
    "D-CHK-7": "chunks_are_uploaded_again_and_renewed_by_who_is_in_the_open_epoch",
    "D-CHK-8": "chunks_live_by_age_since_they_were_renewed",
    "D-LOG-1": "a_log_is_made_by_who_holds_its_first_key",
    "D-LOG-2": "another_log_under_a_known_id_is_refused",
    "D-LOG-3": "a_retention_out_of_bounds_is_refused",
    "D-LOG-4": "logs_made_by_one_requester_are_limited",
    "D-COR-2": "a_correction_opens_a_sibling_beside_the_wrong_claim",
    "D-COR-3": "many_members_who_correct_all_succeed",
    "D-COR-4": "a_correction_has_a_rate_of_its_own",
    "D-SUB-1": "entries_appended_while_a_subscription_starts_come_once_and_in_order",
    "D-SUB-2": "a_wake_up_carries_no_content",
    "D-SUB-3": "a_subscription_delivers_each_entry_once_and_goes_on_past_the_end",
    "D-SUB-4": "a_slow_reader_is_cut_off_and_costs_the_others_nothing",
    "D-SUB-5": "a_subscription_to_a_dropped_epoch_is_ended",
    "D-SUB-7": "logs_and_inboxes_are_not_subscribed_to_on_one_connection",
    "D-BOX-1": "a_box_is_written_with_its_token_only",
    "D-BOX-2": "a_request_that_is_not_padded_is_refused",
    "D-BOX-3": "a_request_reaches_readers_of_the_epoch_and_of_its_descendants",
    "D-SUC-5": "a_successor_is_accepted_in_an_ended_epoch_and_ends_none",
    "D-INB-2": "an_inbox_is_opened_once_by_one_token",
    "D-INB-3": "one_claim_is_good_for_one_envelope",
    "D-INB-4": "the_owner_mints_tickets",
    "D-INB-5": "an_envelope_that_is_not_padded_is_refused",
    "D-INB-9": "what_is_acknowledged_is_deleted",
    "D-DIR-1": "a_package_of_another_user_is_refused",
    "D-DIR-2": "a_claimed_package_cannot_be_published_again",
    "D-DIR-3": "the_last_resort_package_never_runs_out_and_is_used_last",
    "D-DIR-4": "nobody_drains_a_user",
    "D-DIR-5": "an_expired_package_is_not_handed_out",
    "D-DIR-6": "the_owner_hears_when_few_packages_are_left",
    "D-DIR-7": "a_new_last_resort_package_replaces_the_old_one",
    "D-DIR-8": "a_withdrawn_package_is_not_handed_out_and_not_taken_again",
    "D-DIR-9": "a_bucket_refills_with_time",
    "D-TRA-1": "an_unknown_path_and_a_wrong_method_are_client_errors",
    "D-TRA-3": "versions_are_negotiated",
    "D-TRA-4": "sizes_are_limited",
    "D-TRA-6": "metrics_name_no_log_epoch_or_user",
    "D-RET-1": "the_message_quota_drops_the_oldest_messages",
    "D-RET-2": "an_epoch_closes_when_its_first_candidate_is_old",
    "D-RET-3": "a_flood_under_one_candidate_takes_nothing_from_another",
    "D-RET-4": "an_ended_epoch_is_gone_and_says_so",
    "D-RET-5": "an_idle_log_is_dropped_with_everything_in_it",
    "D-RET-6": "nothing_is_dropped_before_its_time",
    "D-RET-7": "old_messages_are_dropped_and_reported_as_gone",
}


def service_rules() -> set[str]:
    rules = re.findall(
        r"^- \*\*(D-[A-Z]{3}-\d+)\*\*(.*?)(?=^- \*\*D-|^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    return {rule for rule, text in rules if "[S]" in text}


def test_every_rule_of_the_service_has_a_test() -> None:
    assert TESTS.keys() == service_rules()


def test_the_tests_that_rules_name_exist() -> None:
    files = (
        *(ROOT / "tests/unit/delivery").glob("test_*.py"),
        *(ROOT / "tests/services").glob("*.py"),
    )
    defined = set(
        re.findall(r"^def test_(\w+)", "\n".join(f.read_text() for f in files), re.MULTILINE)
    )
    assert set(TESTS.values()) <= defined
