//! What the kernel says about the machine as a whole.

use std::fs;

use api::{Value, object};
use jiff::Timestamp;

use crate::eviction;

/// The interface whose figures stand for the machine.
const DEFAULT: &str = "eth0";
/// Interfaces whose names begin with these are not the machine's own.
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// When the machine was started.
pub(super) fn booted() -> Option<Timestamp> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(line.trim().parse().ok()?).ok()
}

/// How many processes there are and can be; null when that is not known.
pub(super) fn processes(now: &str) -> Value {
    eviction::processes()
        .map_or(Value::Null, |(running, most)| object!({"time": now, "maxpid": (most), "curproc": (running)}))
}

/// What went through the machine's interfaces; null when that is not known.
pub(super) fn network(now: &str) -> Value {
    fs::read_to_string("/proc/1/net/dev")
        .or_else(|_| fs::read_to_string("/proc/net/dev"))
        .map_or(Value::Null, |text| shown(&text, now))
}

fn shown(text: &str, now: &str) -> Value {
    let interfaces: Vec<Value> = text.lines().filter_map(interface).collect();
    let default = interfaces.iter().find(|interface| interface.str_at(&["name"]) == DEFAULT);
    let mut network = default.cloned().unwrap_or_else(|| object!({"name": ""}));
    network.set(&["time"], now);
    network.set(&["interfaces"], Value::Array(interfaces));
    network
}

/// A line of `/proc/net/dev`: the name, eight numbers for what was received, eight for what was sent.
fn interface(line: &str) -> Option<Value> {
    let (name, numbers) = line.split_once(':')?;
    let name = name.trim();
    if IGNORED.iter().any(|ignored| name.starts_with(ignored)) {
        return None;
    }
    let numbers: Vec<i64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [received, _, receive_errors, _, _, _, _, _, sent, _, send_errors, ..] = numbers.as_slice() else {
        return None;
    };
    Some(object!({
        "name": name,
        "rxBytes": (*received),
        "rxErrors": (*receive_errors),
        "txBytes": (*sent),
        "txErrors": (*send_errors),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Inter-|   Receive                   |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
        eth0: 617 18 1 0 0 0 0 0 120 11 2 0 0 0 0 0\n\
        veth1a: 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5\n  \
        cni0: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";

    #[test]
    fn the_machines_own_interfaces_are_shown_and_one_stands_for_all() {
        let eth0 = object!({"name": "eth0", "rxBytes": 617, "rxErrors": 1, "txBytes": 120, "txErrors": 2});
        let cni0 = object!({"name": "cni0", "rxBytes": 7, "rxErrors": 0, "txBytes": 8, "txErrors": 0});
        let mut expected = eth0.clone();
        expected.set(&["time"], "now");
        expected.set(&["interfaces"], Value::Array(vec![eth0, cni0.clone()]));
        assert_eq!(shown(TEXT, "now"), expected);
        let other = TEXT.replace("eth0", "lo1");
        assert_eq!(shown(&other, "now"), object!({"name": "", "time": "now", "interfaces": [(cni0)]}));
    }

    #[test]
    fn the_machine_was_started_in_the_past() {
        assert!(booted().unwrap() < Timestamp::now());
    }
}
