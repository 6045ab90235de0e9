//! What the queues hold, for people: the tables below `/debug/api_priority_and_fairness/`.

use std::fmt::Write;

use http::{Response, StatusCode};
use serve::Body;

use super::config::Config;

/// The answer, if the path is one of these tables.
pub(super) fn respond(config: &Config, path: &str) -> Option<Response<Body>> {
    let rows = match path.strip_prefix("/debug/api_priority_and_fairness/")? {
        "dump_priority_levels" => levels(config),
        "dump_queues" => queues(config),
        "dump_requests" => requests(config),
        _ => return None,
    };
    Some(serve::text(StatusCode::OK, table(&rows)))
}

type Rows = Vec<Vec<String>>;

fn header(names: &[&str]) -> Rows {
    vec![names.iter().map(|n| (*n).to_owned()).collect()]
}

fn levels(config: &Config) -> Rows {
    let mut rows = header(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    for (name, state) in &config.levels {
        let set = state.level.shared.set.lock();
        let active = set.queues.iter().filter(|q| !q.waiting.is_empty()).count();
        rows.push(vec![
            name.clone(),
            active.to_string(),
            set.is_idle().to_string(),
            state.quiescing.to_string(),
            set.waiting.to_string(),
            set.executing.to_string(),
            set.dispatched.to_string(),
            set.rejected.to_string(),
            set.timed_out.to_string(),
            set.timed_out.to_string(),
        ]);
    }
    rows
}

fn queues(config: &Config) -> Rows {
    let mut rows = header(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    for (name, state) in &config.levels {
        for (index, queue) in state.level.shared.set.lock().queues.iter().enumerate() {
            let initial: u32 = queue.waiting.iter().map(|w| w.work.initial).sum();
            let most: u32 = queue.waiting.iter().map(|w| w.work.seats()).sum();
            rows.push(vec![
                name.clone(),
                index.to_string(),
                queue.waiting.len().to_string(),
                queue.executing.to_string(),
                queue.seats_in_use.to_string(),
                format!("{:.8}ss", queue.next),
                initial.to_string(),
                most.to_string(),
                format!("{:.8}ss", queue.work_waiting),
            ]);
        }
    }
    rows
}

/// Requests that wait.
// DIVERGES: upstream lists those that run too, of which nothing is kept here.
fn requests(config: &Config) -> Rows {
    let mut rows = header(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
    ]);
    for (name, state) in &config.levels {
        for (index, queue) in state.level.shared.set.lock().queues.iter().enumerate() {
            for (place, waiting) in queue.waiting.iter().enumerate() {
                rows.push(vec![
                    name.clone(),
                    waiting.waiter.schema.clone(),
                    index.to_string(),
                    place.to_string(),
                    waiting.waiter.flow.clone(),
                    waiting.waiter.since.to_string(),
                    waiting.work.initial.to_string(),
                    waiting.work.last.to_string(),
                    format!("{}ms", waiting.work.extra.as_millis()),
                ]);
            }
        }
    }
    rows
}

/// Columns as wide as their widest cell, divided by commas.
fn table(rows: &Rows) -> String {
    let mut text = String::new();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|r| r[column].len() + 1).max().unwrap_or(0).max(7);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let ends = at + 1 == columns;
            let cell = if ends { cell.clone() } else { format!("{cell},") };
            // A string takes all that is written to it.
            let _ = if ends { write!(text, "{cell}") } else { write!(text, "{cell:<width$} ") };
        }
        text.push('\n');
    }
    text
}
