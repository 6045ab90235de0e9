//! One question: which server block, which plug-in, which answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use client::Informer;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, SOA};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use prometheus::{HistogramVec, IntCounterVec};
use rand::seq::SliceRandom;
use tracing::{error, info};

use crate::cluster::{self, Objects, in_zone};
use crate::records::{Service, Slice};
use crate::zone::Zone;

/// What all questions share.
pub(crate) struct Shared {
    pub(crate) zones: ArcSwap<Vec<Zone>>,
    pub(crate) services: Informer<Service>,
    pub(crate) slices: Informer<Slice>,
    pub(crate) namespaces: Informer<()>,
    /// The name that must not come back to us, and how often it did.
    pub(crate) probe: String,
    pub(crate) probes_seen: AtomicU32,
    pub(crate) requests: IntCounterVec,
    pub(crate) responses: IntCounterVec,
    pub(crate) seconds: HistogramVec,
}

/// Answers the questions that come to one port.
pub(crate) struct Handler {
    pub(crate) shared: Arc<Shared>,
    pub(crate) port: u16,
}

fn failure(code: ResponseCode) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = code;
    message
}

/// The SOA record CoreDNS makes up for a zone.
fn soa(zone: &str, ttl: u32) -> Option<Record> {
    let name = Name::from_ascii(zone).ok()?;
    let primary = Name::from_ascii(format!("ns.dns.{zone}")).ok()?;
    let mailbox = Name::from_ascii(format!("hostmaster.{zone}")).ok()?;
    let serial = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs() as u32);
    let soa = SOA::new(primary, mailbox, serial, 7200, 1800, 86400, ttl);
    Some(Record::from_rdata(name, ttl, RData::SOA(soa)))
}

impl Handler {
    async fn answer(&self, query: &Query, request: &Message) -> Message {
        let name = query.name().to_ascii().to_lowercase();
        let zones = self.shared.zones.load_full();
        let here = zones.iter().flat_map(|z| z.names.iter().map(move |(n, p)| (z, n, *p)));
        let fitting = here.filter(|(_, n, p)| *p == self.port && in_zone(&name, n));
        let Some((zone, ..)) = fitting.max_by_key(|(_, n, _)| n.len()) else {
            return failure(ResponseCode::Refused);
        };
        let mut message = self.through(zone, query, &name, request).await;
        if zone.shuffle {
            shuffle(&mut message.answers);
        }
        if zone.log {
            let (kind, code) = (query.query_type(), message.metadata.response_code);
            info!(%kind, name, code = ?code, answers = message.answers.len(), "Query");
        }
        message
    }

    /// Through the plug-ins of a block.
    async fn through(&self, zone: &Zone, query: &Query, name: &str, request: &Message) -> Message {
        if zone.loop_check && name == self.shared.probe {
            self.shared.probes_seen.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(plugin) = &zone.hosts {
            match plugin.hosts.addresses(name) {
                Some(ips) => return addresses(query, ips, plugin.ttl),
                None if !plugin.fallthrough => return failure(ResponseCode::NXDomain),
                None => {}
            }
        }
        if let Some(message) = self.cluster(zone, query, name) {
            return message;
        }
        let fits = |f: &&crate::forward::Forward| {
            in_zone(name, &f.from) && !f.except.iter().any(|e| in_zone(name, e))
        };
        let Some(forward) = zone.forward.iter().find(fits) else { return failure(ResponseCode::Refused) };
        if let Some(kept) = zone.cache.as_ref().and_then(|c| c.get(name, query.query_type())) {
            return kept;
        }
        match forward.ask(request).await {
            Ok(mut message) => {
                if let Some(cache) = &zone.cache {
                    cache.put(name, query.query_type(), &mut message);
                }
                message
            }
            Err(e) => {
                if zone.errors {
                    error!(name, kind = %query.query_type(), err = %e, "Cannot forward");
                }
                failure(ResponseCode::ServFail)
            }
        }
    }

    /// The answer for a name of the cluster; none for names that others answer.
    fn cluster(&self, zone: &Zone, query: &Query, name: &str) -> Option<Message> {
        let options = zone.kubernetes.as_ref()?;
        let fitting = options.zones.iter().filter(|z| in_zone(name, z));
        let matched = fitting.max_by_key(|z| z.len())?;
        if !self.is_synced() {
            return Some(failure(ResponseCode::ServFail));
        }
        let objects = Objects {
            services: self.shared.services.store(),
            slices: self.shared.slices.store(),
            namespaces: self.shared.namespaces.store(),
        };
        let kind = query.query_type();
        let found = cluster::answer(&objects, options, matched, query.name(), name, kind);
        if !found.exists && options.fallthrough.iter().any(|z| in_zone(name, z)) {
            return None;
        }
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.authoritative = true;
        if !found.exists {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        if found.answers.is_empty() {
            let record = soa(matched, options.ttl);
            if kind == RecordType::SOA && name == matched {
                message.answers.extend(record);
            } else {
                message.authorities.extend(record);
            }
        }
        message.answers.extend(found.answers);
        message.additionals.extend(found.additionals);
        Some(message)
    }

    fn is_synced(&self) -> bool {
        let shared = &self.shared;
        shared.services.is_synced() && shared.slices.is_synced() && shared.namespaces.is_synced()
    }
}

fn addresses(query: &Query, ips: &[IpAddr], ttl: u32) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.authoritative = true;
    for ip in ips {
        let data = match (ip, query.query_type()) {
            (IpAddr::V4(ip), RecordType::A) => RData::A(A(*ip)),
            (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(AAAA(*ip)),
            _ => continue,
        };
        message.answers.push(Record::from_rdata(query.name().clone(), ttl, data));
    }
    message
}

/// Aliases stay in front, addresses change places.
fn shuffle(answers: &mut Vec<Record>) {
    let is_address = |r: &Record| matches!(r.record_type(), RecordType::A | RecordType::AAAA);
    let (mut addresses, mut others): (Vec<_>, Vec<_>) = answers.drain(..).partition(is_address);
    addresses.shuffle(&mut rand::rng());
    others.extend(addresses);
    *answers = others;
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let started = std::time::Instant::now();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let parsed = Message::from_vec(request.as_slice());
        let message = match &parsed {
            Ok(m) if m.metadata.op_code != OpCode::Query => failure(ResponseCode::NotImp),
            Ok(m) if m.queries.len() == 1 => self.answer(&m.queries[0], m).await,
            _ => failure(ResponseCode::FormErr),
        };
        let given = &message.metadata;
        metadata.message_type = MessageType::Response;
        metadata.response_code = given.response_code;
        metadata.authoritative = given.authoritative;
        metadata.recursion_available = true;
        self.count(parsed.as_ref().ok(), given.response_code, started);
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response = builder.build(
            metadata,
            message.answers.iter(),
            message.authorities.iter(),
            std::iter::empty(),
            message.additionals.iter(),
        );
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(e) => {
                tracing::debug!(err = %e, "Cannot send an answer");
                ResponseInfo::from(hickory_server::proto::op::Header {
                    metadata,
                    counts: hickory_server::proto::op::HeaderCounts::default(),
                })
            }
        }
    }
}

impl Handler {
    fn count(&self, request: Option<&Message>, code: ResponseCode, started: std::time::Instant) {
        let server = format!("dns://:{}", self.port);
        let kind = request.and_then(|m| m.queries.first()).map(|q| q.query_type().to_string());
        let code = match code {
            ResponseCode::NoError => "NOERROR",
            ResponseCode::NXDomain => "NXDOMAIN",
            ResponseCode::ServFail => "SERVFAIL",
            ResponseCode::Refused => "REFUSED",
            ResponseCode::FormErr => "FORMERR",
            ResponseCode::NotImp => "NOTIMP",
            _ => "other",
        };
        self.shared.requests.with_label_values(&[server.as_str(), kind.as_deref().unwrap_or("other")]).inc();
        self.shared.responses.with_label_values(&[server.as_str(), code]).inc();
        self.shared.seconds.with_label_values(&[server.as_str()]).observe(started.elapsed().as_secs_f64());
    }
}
