//! Queues: what every driver has to do, run against a queue in memory and against a real `nats-server`; and the real
//! router between a `nats-server` and an Elasticsearch of ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
#[path = "../http/client.rs"]
mod client;
mod conformance;
#[allow(dead_code)]
#[path = "../flow/elastic.rs"]
mod elastic;
mod flowing;
mod harness;
mod memory;
mod nats;
mod process;

#[allow(dead_code)]
#[path = "../http/elastic.rs"]
mod stored;

/// Every test of the suite, against one kind of queue; `$start` makes one of a name, or none where there is none.
macro_rules! suite {
    ($kind:ident, $start:path, $($from:ident: $($name:ident)*;)*) => {
        mod $kind {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(queue) = $start(stringify!($name)).await {
                        super::super::$from::$name(queue).await;
                    }
                }
            )*)*
        }
    };
}

macro_rules! every {
    ($kind:ident, $start:path) => {
        suite! { $kind, $start,
            conformance:
                credit_is_never_exceeded
                what_a_reader_held_that_crashed_comes_again
                a_slow_message_is_not_delivered_again
                what_is_returned_comes_again_in_its_time
                a_dead_letter_is_there_before_its_original_is_gone
                what_is_parked_is_read_from_there
                a_reader_that_closes_returns_what_it_holds
                a_poll_that_is_dropped_loses_nothing
                a_queue_that_restarts_has_everything;
            flowing:
                under_faults_exactly_what_was_published_is_there
                poison_is_a_dead_letter_and_its_neighbours_are_written
                what_a_blocked_destination_gets_waits_and_the_others_go_on
                a_tenant_over_its_limit_waits_and_the_others_go_on
                what_waits_goes_where_the_next_table_says_and_keeps_no_table_in_use
                a_router_that_stops_acknowledges_or_returns_everything
                a_queue_that_dies_in_the_middle_loses_nothing
                each_participant_has_a_copy_before_the_message_is_acknowledged
                a_message_without_an_id_is_written_once_however_often_it_comes
                an_outcome_that_nobody_knows_is_said_and_not_tried_again
                memory_is_bounded_while_nothing_can_be_written;
        }
    };
}

mod with {
    every! { in_memory, crate::memory::Memory::start }
    every! { real_nats, crate::nats::Broker::start }
}
