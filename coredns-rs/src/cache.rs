//! The cache plug-in: answers of other servers, for as long as their TTL (and the configuration) allows.

use std::collections::HashMap;
use std::time::Duration;

use hickory_server::proto::op::{Message, ResponseCode};
use hickory_server::proto::rr::RecordType;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Answers kept at most; when full, the outdated go, and if none is, all.
const CAPACITY: usize = 9984;

type Question = (String, RecordType);

struct Kept {
    message: Message,
    since: Instant,
    until: Instant,
}

/// Kept answers.
pub(crate) struct Cache {
    max: u32,
    max_denial: u32,
    kept: Mutex<HashMap<Question, Kept>>,
}

impl Cache {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, max_denial: max.min(1800), kept: Mutex::default() }
    }

    /// A kept answer, with what is left of its TTLs.
    pub(crate) fn get(&self, name: &str, kind: RecordType) -> Option<Message> {
        let kept = self.kept.lock();
        let found = kept.get(&(name.to_owned(), kind)).filter(|k| k.until > Instant::now())?;
        let age = u32::try_from(found.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        let mut message = found.message.clone();
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Keeps an answer; failures and truncated answers are not kept.
    pub(crate) fn put(&self, name: &str, kind: RecordType, message: &mut Message) {
        let code = message.metadata.response_code;
        let denial = code == ResponseCode::NXDomain || message.answers.is_empty();
        let max = if denial { self.max_denial } else { self.max };
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = record.ttl.min(max);
        }
        let ttl = message.answers.iter().chain(&message.authorities).map(|r| r.ttl).min().unwrap_or(0);
        let usable = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        if !usable || message.metadata.truncation || ttl == 0 {
            return;
        }
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if kept.len() >= CAPACITY {
            kept.retain(|_, k| k.until > now);
            if kept.len() >= CAPACITY {
                kept.clear();
            }
        }
        let until = now + Duration::from_secs(ttl.into());
        kept.insert((name.to_owned(), kind), Kept { message: message.clone(), since: now, until });
    }
}
